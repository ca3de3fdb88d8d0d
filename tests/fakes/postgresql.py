"""A PostgreSQL of one's own, from Debian's packages: started for a test, stopped and removed after it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class PostgreSQL:
    """A running server with the database ``mlflow`` of the user ``mlflow``.

    Attributes:
        port: on 127.0.0.1; any password is accepted there.
    """

    def __init__(self, binaries: Path, root: Path, port: int) -> None:
        self._binaries, self._data, self.port = binaries, root / "data", port
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(root, "postgres", "postgres")
            self._as_user = ["runuser", "-u", "postgres", "--"]

    @property
    def uri(self) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg2://mlflow@127.0.0.1:{self.port}/mlflow"

    def create(self) -> None:
        """Make the cluster and the database; leaves the server running."""
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "mlflow")
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "mlflow")

    def start(self) -> None:
        """Start the server and wait for it."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._data}"
        log = str(self._data / "log")
        self._run("pg_ctl", "-D", str(self._data), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        """Stop it at once, as a deleted pod would."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self._binaries / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """A server for as long as this lasts; the test is skipped where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    pytest.importorskip("psycopg2")
    root = Path(tempfile.mkdtemp(prefix="latentrec-pg-"))  # pytest's own folders are closed to other users
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = PostgreSQL(found[-1].parent, root, port)
    try:
        server.create()
        yield server
    finally:
        server.stop()
        shutil.rmtree(root)
