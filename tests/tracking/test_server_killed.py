"""A real MLflow server, killed while a step trains and started again: every point is there afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latentrec.tracking.mlflow_logger import AWAY, BACK
from tests.fakes.postgresql import running_postgresql
from tests.fakes.tracking_server import TrackingServer

STEP = """
import sys, time
from latentrec.steps.step_run import step_run
with step_run("sft", config={"lr": 0.1}) as run:
    print("open", flush=True)
    for step in range(400):
        start = time.perf_counter()
        run.metric_logger.log_metrics({"train/loss": 1 / (step + 1)}, step)
        assert time.perf_counter() - start < 1.0, "a training step waited for the tracking server"
        print(step, flush=True)
        time.sleep(0.02)
"""


@pytest.fixture
def sqlite_store(tmp_path):
    return f"sqlite:///{tmp_path / 'server.db'}"


@pytest.fixture
def postgresql_store():
    with running_postgresql() as server:
        yield server.uri


def train_through_an_outage(store: str, root: Path) -> tuple[str, str]:
    """Kill the server at step 100, bring it back 3 s later; returns its address and the step's log."""
    server = TrackingServer(store, root)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "MLFLOW_TRACKING_URI": server.url,
        "LATENTREC_RUN_ID": "run-1",
        "LATENTREC_METRIC_QUEUE_DIR": str(root / "spool"),
        "LATENTREC_STATUS_ROOT": str(root / "status"),
        "LATENTREC_TRACKING_FLUSH_SECONDS": "300",  # MLflow takes a minute to start on a loaded machine
    }
    with (root / "step.err").open("wb") as errors:
        step = subprocess.Popen(
            [sys.executable, "-c", STEP], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        for line in step.stdout:
            if line == "100\n":
                server.kill()
                time.sleep(3)
                server.start()
    errors_text = (root / "step.err").read_text()
    try:
        assert step.wait(120) == 0, errors_text
        print(errors_text)  # shown where a check fails
        check_every_point(server.url)
    finally:
        server.kill()
    return server.url, errors_text


def check_every_point(url: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(url)
    experiment = client.get_experiment_by_name("latentrec")
    runs = client.search_runs([experiment.experiment_id])
    (run,) = [run for run in runs if run.data.tags.get("latentrec.step") == "sft"]
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(p.step, p.value) for p in points] == [(step, 1 / (step + 1)) for step in range(400)]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1"}


def test_every_point_is_there_after_the_server_was_killed_sqlite(sqlite_store, tmp_path):
    _, log = train_through_an_outage(sqlite_store, tmp_path)
    assert AWAY in log
    assert BACK in log


@pytest.mark.slow
def test_every_point_is_there_after_the_server_was_killed_postgresql(postgresql_store, tmp_path):
    _, log = train_through_an_outage(postgresql_store, tmp_path)
    assert AWAY in log
    assert BACK in log


def test_figures_of_a_step_that_ended_in_an_outage_are_sent_by_the_last_step(tracked, tmp_path, monkeypatch):
    from latentrec.steps.step_run import finish_parent_run, step_run

    uri = tracked.uri
    report = tmp_path / "report.md"
    report.write_text("# fine")
    for name, value in {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "LATENTREC_TRACKING_OPEN_SECONDS": "0.1",
        "LATENTREC_TRACKING_FLUSH_SECONDS": "0.1",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    with step_run("sft") as run:
        run.metric_logger.log_metrics({"loss": 1.5}, 7)
        run.metric_logger.log_artifact(report)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("LATENTREC_METRIC_QUEUE_DIR")
    finish_parent_run("FINISHED")
    (found,) = tracked.steps("sft")
    points = tracked.client.get_metric_history(found.info.run_id, "loss")
    assert [(p.step, p.value) for p in points] == [(7, 1.5)]
    assert found.info.status == "FINISHED"
    assert [entry.path for entry in tracked.client.list_artifacts(found.info.run_id)] == ["report.md"]
    left = (tmp_path / "status" / "undelivered").rglob("*")
    assert [path for path in left if path.is_file()] == []
