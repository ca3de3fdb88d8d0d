"""``make mlflow-ui``: MLflow on the local runs, opened at the experiment instead of at an empty page."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import urllib.request
import webbrowser

from latentrec.core import UserError
from latentrec.steps.status import exit_code_on_error
from latentrec.tracking.embedded_store import embedded_path, open_client
from latentrec.tracking.run_context import DEFAULT_EXPERIMENT
from pipeline.local_runner import RunFolders
from pipeline.stop_request import StopRequest
from pipeline.tracking_uri import runs_folder

START_SECONDS = 120.0


def main(argv: list[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make mlflow-ui", description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args(argv).port
    folders = RunFolders(runs_folder())
    uri = folders.environment["MLFLOW_TRACKING_URI"]
    page = f"http://127.0.0.1:{port}/{experiment_page(uri)}"
    if not embedded_path(uri):
        print(f"{uri} is a server; its experiment: {uri.rstrip('/')}/{experiment_page(uri)}", flush=True)
        return
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port)]
    command += ["--uvicorn-opts", "--log-level warning"]  # the address below is what one looks for
    stop = StopRequest()
    with stop.on_signals():
        try:
            server = subprocess.Popen(command, env={"PYTHONWARNINGS": "ignore", **os.environ})
            if _is_up(server, port):
                print(f"\nexperiment: {page}   (Ctrl-C ends)\n", flush=True)
                _open(page)
            sys.exit(server.wait())
        except KeyboardInterrupt:
            stop.wait()


def experiment_page(uri: str) -> str:
    """The part of the address behind the server's name.

    Raises:
        UserError: nothing has run yet.
    """
    path = embedded_path(uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    found = None if path and not path.exists() else open_client(uri).get_experiment_by_name(name)
    if found is None:
        raise UserError(
            f"{uri} has no experiment '{name}' yet; `make run` makes it (or give RUNS_DIR=)",
            code="tracking.no_experiment",
        )
    return f"#/experiments/{found.experiment_id}/runs?workflowType=machine_learning"


def _is_up(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return True
        except OSError:
            time.sleep(0.2)
    return False


def _open(page: str) -> None:
    """In the user's browser, where there is a desktop; a text browser would take the terminal."""
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(page)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
