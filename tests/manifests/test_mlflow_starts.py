"""MLflow's Deployment on this machine: its own command line, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from mlflow.tracking import MlflowClient

from tests.fakes.postgresql import running_postgresql
from tests.manifests.deployment import MANIFESTS, base_mlflow, command_line

PASSWORD = "s3cret"


def local_mlflow() -> dict[str, Any]:
    """The Deployment of the overlay for one machine, which serves its artifacts."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")
    command = ["kubectl", "kustomize", str(MANIFESTS / "overlays/local")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    entries = yaml.safe_load_all(done.stdout)
    return next(entry for entry in entries if entry["kind"] == "Deployment")


@contextmanager
def served(
    deployment: dict[str, Any], artifact_root: str, replaced: Mapping[str, str], folder: Path
) -> Iterator[str]:
    """The server of a Deployment on a free port; yields its address.

    Args:
        deployment: the object.
        artifact_root: what the ConfigMap would say.
        replaced: texts of the command line and its variables that mean another place here.
        folder: for its log and its files.
    """
    words, variables = command_line(
        deployment, {"DATABASE_PASSWORD": PASSWORD, "ARTIFACT_ROOT": artifact_root}
    )
    for old, new in replaced.items():
        assert any(old in text for text in [*words, *variables.values()]), old
        words = [word.replace(old, new) for word in words]
        variables = {name: value.replace(old, new) for name, value in variables.items()}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(Path(sys.executable).with_name(words[0])), *words[1:], f"--port={port}"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            words, env={**clean, **variables}, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        wait_until_healthy(f"http://localhost:{port}", process, folder / "server.log")
        yield f"http://localhost:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(480):
        try:
            if requests.get(f"{url}/health", timeout=2).ok:
                return
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.25)
        assert process.poll() is None, log.read_text()[-3000:]
    raise AssertionError(f"not healthy: {log.read_text()[-3000:]}")


def log_a_run(url: str) -> str:
    client = MlflowClient(url)
    found = client.get_experiment_by_name("latentrec")
    experiment = found.experiment_id if found else client.create_experiment("latentrec")
    run = client.create_run(experiment).info.run_id
    client.log_metric(run, "loss", 0.5)
    return run


def test_on_postgresql_it_serves_and_outlives_its_database(tmp_path):
    with running_postgresql() as database:
        replaced = {"@mlflow-database:5432": f"@127.0.0.1:{database.port}"}
        with served(base_mlflow(), "gs://bucket/mlflow", replaced, tmp_path) as url:
            first = log_a_run(url)
            foreign = requests.get(url, headers={"Host": "evil.example"}, timeout=10)
            assert foreign.status_code == 403
            database.stop()
            database.start()
            second = log_a_run(url)
            client = MlflowClient(url)
            assert [client.get_run(run).data.metrics["loss"] for run in (first, second)] == [0.5, 0.5]
            assert client.get_run(first).info.artifact_uri.startswith("gs://bucket/mlflow/")
    log = (tmp_path / "server.log").read_text()
    assert PASSWORD not in log


def test_on_sqlite_the_local_overlay_keeps_artifacts_on_its_volume(tmp_path):
    words, variables = command_line(local_mlflow(), {"DATABASE_PASSWORD": PASSWORD, "ARTIFACT_ROOT": "x"})
    assert "--artifacts-destination=/artifacts" in words
    replaced = {
        variables["MLFLOW_BACKEND_STORE_URI"]: f"sqlite:///{tmp_path / 'mlflow.db'}",
        "--artifacts-destination=/artifacts": f"--artifacts-destination={tmp_path / 'volume'}",
    }
    report = tmp_path / "report.md"
    report.write_text("# fine")
    with served(local_mlflow(), "mlflow-artifacts:/", replaced, tmp_path) as url:
        run = log_a_run(url)
        client = MlflowClient(url)
        client.log_artifact(run, str(report))
        assert [entry.path for entry in client.list_artifacts(run)] == ["report.md"]
    (kept,) = (tmp_path / "volume").rglob("report.md")
    assert kept.read_text() == "# fine"
