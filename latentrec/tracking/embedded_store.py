"""The embedded MLflow store (SQLite): made whole or not at all, and repaired where a first start was cut off.

MLflow makes its tables by some sixty migrations, and SQLite commits each of them by itself. Two processes
that begin at once, or Ctrl-C in the first second, leave a database that every later start refuses. So the
database is made here, under a lock, in a file beside it that is renamed when it is whole; the same holds for
upgrades.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from latentrec.core import UserError
from latentrec.storage import exclusive
from latentrec.tracking.mlflow_compat import (
    database_tables,
    leave_folders_to_us,
    schema_revision,
    upgrade_database,
)
from latentrec.tracking.moved_store import artifact_root, former_root, relocate

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_PREFIX = "sqlite:///"
_logger = logging.getLogger(__name__)
_sound: set[tuple[str, int]] = set()


def open_client(tracking_uri: str) -> MlflowClient:
    """A client of an MLflow server or database; an embedded database is made or repaired first.

    Raises:
        UserError: the embedded database cannot be made, or is damaged and holds runs.
    """
    prepare_embedded_store(tracking_uri)
    return import_client()(tracking_uri)


def import_client() -> type[MlflowClient]:
    """MLflow's client; the import takes seconds and may be worth beginning early."""
    from mlflow.tracking import MlflowClient

    return MlflowClient


def embedded_uri(path: str | Path) -> str:
    """The location of an SQLite file as SQLAlchemy reads it: ``%`` and ``?`` in its path are written out."""
    return _PREFIX + str(path).replace("%", "%25").replace("?", "%3F")


def embedded_path(tracking_uri: str) -> Path | None:
    """The file of an embedded SQLite store; ``None`` for a server or a database in memory."""
    if not tracking_uri.startswith(_PREFIX):
        return None
    name = unquote(tracking_uri.removeprefix(_PREFIX).partition("?")[0])
    return Path(name).resolve() if name and name != ":memory:" else None


def prepare_embedded_store(tracking_uri: str) -> None:
    """Make the database of an embedded store where there is none; repair one that was cut off in the making.

    Raises:
        UserError: its folder cannot be written, the file is no database, or a damaged one holds runs.
    """
    path = embedded_path(tracking_uri)
    if path is None or ((str(path), os.getpid()) in _sound and path.exists()):
        return
    leave_folders_to_us()
    try:
        if _state(path) != "sound":
            with exclusive(path.with_name(f".{path.name}.lock")):
                _repair(path)
                _relocate(path)
    except OSError as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI {tracking_uri}: {path} cannot be made ({error.strerror or error}); "
            "choose another RUNS_DIR or MLFLOW_TRACKING_URI",
            code="tracking.not_writable",
        ) from None
    _sound.add((str(path), os.getpid()))


def _repair(path: Path) -> None:
    """Under the lock: make, upgrade or replace the database, or leave it to the user."""
    for stale in path.parent.glob(f".{path.name}.making-*"):
        stale.unlink(missing_ok=True)
    state = _state(path)
    if state in ("sound", "moved"):  # another process has made it meanwhile
        return
    made = path.with_name(f".{path.name}.making-{secrets.token_hex(4)}")
    try:
        if state == "absent":
            _migrate(made, path.parent)
        else:
            _copy(path, made)
            if not _upgraded(made, path.parent):
                _refuse_if_it_holds_runs(path)
                made.unlink()
                _migrate(made, path.parent)
                _logger.warning("%s was cut off while it was made, and held no run; made again", path)
            _set_aside(path)
        with made.open("rb") as stream:
            os.fsync(stream.fileno())
        os.rename(made, path)
    finally:
        for left in (made, made.with_name(made.name + "-journal")):
            left.unlink(missing_ok=True)


def _relocate(path: Path) -> None:
    former = relocate(path)
    if former is not None:
        _logger.warning("%s was moved here from %s; its artifacts are now looked for here", path, former)


def _state(path: Path) -> str:
    """``absent``, ``sound``, ``moved`` (from another folder), or ``unfinished``: not this MLflow's schema.

    Raises:
        UserError: the file is no SQLite database.
    """
    if not path.exists() or path.stat().st_size == 0:
        return "absent"
    try:
        with closing(sqlite3.connect(path, timeout=20)) as connection:
            tables = {
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            if not database_tables() <= tables or "alembic_version" not in tables:
                return "unfinished"
            found = {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")}
            if found != {schema_revision()}:
                return "unfinished"
            return "moved" if former_root(connection, path) else "sound"
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{path} cannot be read as MLflow's database ({error}); move it away or choose another RUNS_DIR",
            code="tracking.unreadable",
        ) from None


def _migrate(made: Path, folder: Path) -> None:
    """MLflow's own first start, on ``made``, with the default experiment's artifacts below ``folder``."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for name in ("alembic", "mlflow.store.db"):
        logging.getLogger(name).setLevel(logging.WARNING)
    store = SqlAlchemyStore(embedded_uri(made), artifact_root(folder / made.name))
    store.engine.dispose()


def _upgraded(made: Path, folder: Path) -> bool:
    """Bring a copy to this MLflow's schema; false where the migrations do not go through."""
    for name in ("alembic", "mlflow.store.db"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        upgrade_database(embedded_uri(made))
    except Exception as error:
        _logger.info("%s: %s", made, error)
        return False
    return _state(made) in ("sound", "moved")


def _copy(path: Path, made: Path) -> None:
    with closing(sqlite3.connect(path, timeout=20)) as source, closing(sqlite3.connect(made)) as target:
        source.backup(target)


def _refuse_if_it_holds_runs(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        for table in ("runs", "registered_models", "model_versions"):
            try:
                (count,) = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
            except sqlite3.DatabaseError:
                continue
            if count:
                raise UserError(
                    f"{path}: an upgrade of MLflow's tables was cut off, and it holds {count:,} rows of "
                    f"{table}; put back a copy from before the upgrade, or choose another RUNS_DIR",
                    code="tracking.broken_upgrade",
                )


def _set_aside(path: Path) -> None:
    """Keep what stood there, under a name that says when."""
    kept = path.with_name(f"{path.name}.before-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
    os.link(path, kept)
