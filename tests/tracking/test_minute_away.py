"""A tracking server, killed in a real training, stays away for a minute: what its database holds then."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy

from latentrec.tracking.mlflow_logger import AWAY
from tests.fakes.postgresql import running_postgresql
from tests.fakes.tracking_server import TrackingServer
from tests.fixtures.sequential_data import write_dataset
from tests.fixtures.slow_figures import record_figure

AWAY_S = 60
KILLED_AT, WAITS_AT = 40, 560
LONGEST_CALL_S = 1.0
SHARE_OF_TRAINING = 0.02
"""Of the time away, what all calls of the metric logger together may take."""

TRAINING = """
import json, sys, time
from pathlib import Path
from latentrec.steps.step_run import step_run
from latentrec.tracking.mlflow_logger import MlflowMetricLogger
from latentrec.training.latentr3.sft import train_sft
from latentrec.training.latentr3.sft_config import SFTConfig

dataset, root, waits_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
log_metrics = MlflowMetricLogger.log_metrics
journal = (root / "journal.jsonl").open("a")

def noted(self, metrics, step, **options):
    began = time.time()
    log_metrics(self, metrics, step, **options)
    entry = {"metrics": metrics, "step": step, "began": began, "seconds": time.time() - began}
    journal.write(json.dumps(entry) + "\\n")
    journal.flush()
    if "train/loss" in metrics:
        print(step, flush=True)
        time.sleep(0.12)  # a step of a model of some size
        while step >= waits_at and not (root / "back").exists():
            time.sleep(0.2)

MlflowMetricLogger.log_metrics = noted
config = SFTConfig(
    backbone="micro", num_train_epochs=50, batch_size=16, logging_steps=1, save_steps=10_000,
    validation_samples=20, ranking_samples=10, patience=10_000, evals_per_epoch=1,
)
with step_run("sft", config=config, dataset=dataset) as run:
    train_sft(config, dataset=dataset, output=root / "model", metric_logger=run.metric_logger)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'server.db'}"
    else:
        with running_postgresql() as server:
            yield server.uri


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_minute_without_the_server_loses_no_point_doubles_none_and_holds_no_training_up(
    store, tmp_path, capsys
):
    dataset = write_dataset(tmp_path / "dataset", n_users=60, n_items=24, length=(4, 9))
    server = TrackingServer(store, tmp_path)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": server.url,
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "2",
        "LATENTREC_RUN_ID": "run-1",
        "LATENTREC_METRIC_QUEUE_DIR": str(tmp_path / "queue"),
        "LATENTREC_STATUS_ROOT": str(tmp_path / "status"),
        "LATENTREC_TRACKING_FLUSH_SECONDS": "300",
    }
    command = [sys.executable, "-c", TRAINING, str(dataset), str(tmp_path), str(WAITS_AT)]
    killed = back = 0.0
    with (tmp_path / "training.err").open("wb") as errors:
        training = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        try:
            for line in training.stdout:
                if line == f"{KILLED_AT}\n":
                    break
            server.kill()
            killed = time.time()
            time.sleep(AWAY_S)
            assert training.poll() is None, (tmp_path / "training.err").read_text()
            server.start()
            back = time.time()
            (tmp_path / "back").touch()
            training.stdout.read()
            assert training.wait(240) == 0, (tmp_path / "training.err").read_text()
        finally:
            training.kill()
            server.kill()
    journal = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    check_points(store, journal)
    shown = check_pace(journal, killed, back)
    assert AWAY in (tmp_path / "training.err").read_text()
    database = store.partition(":")[0].partition("+")[0]
    points = f"{len(expected_points(journal)):,} points, each there once; {shown}"
    record_figure(f"tracking server killed in training, {database}", points)
    with capsys.disabled():
        print(f"\n{database}: {points}")


def expected_points(journal: list[dict]) -> dict[tuple[str, int], float]:
    return {
        (name.replace("@", "_"), entry["step"]): value
        for entry in journal
        for name, value in entry["metrics"].items()
    }


def check_points(store: str, journal: list[dict]) -> None:
    """The database's own table, each row counted: the client would hide a point that is there twice."""
    expected = expected_points(journal)
    assert sorted(step for key, step in expected if key == "train/loss") == list(range(1, 601))
    with sqlalchemy.create_engine(store).connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT key, step, value FROM metrics")).all()
        runs = connection.execute(sqlalchemy.text("SELECT status FROM runs")).scalars().all()
    counts = Counter((row.key, row.step) for row in rows)
    assert [key for key, count in counts.items() if count > 1] == []
    assert expected.keys() - counts.keys() == set()
    assert counts.keys() - expected.keys() == set()
    assert {(row.key, row.step): row.value for row in rows} == pytest.approx(expected, rel=1e-12)
    assert "FINISHED" in runs


def check_pace(journal: list[dict], killed: float, back: float) -> str:
    """No call of the logger was slow, and steps without a server took as long as steps with one."""
    steps = [entry for entry in journal if "train/loss" in entry["metrics"]]
    while_away = [entry for entry in steps if killed < entry["began"] < killed + AWAY_S]
    longest = max(entry["seconds"] for entry in journal)
    total = sum(entry["seconds"] for entry in journal if killed < entry["began"] < back)
    assert len(while_away) >= 50, "training stood still while the server was away"
    assert longest < LONGEST_CALL_S
    assert total < SHARE_OF_TRAINING * AWAY_S

    def median_ms(entries: list[dict]) -> float:
        gaps = [after["began"] - before["began"] for before, after in pairwise(entries)]
        return statistics.median(gaps) * 1e3

    return (
        f"away for {back - killed:.0f} s, {len(while_away)} steps in its first {AWAY_S}; a step took "
        f"{median_ms(while_away):.0f} ms without the server, {median_ms(steps[:KILLED_AT]):.0f} with it; the "
        f"logger's calls without it took {total * 1e3:.0f} ms in all, the longest {longest * 1e3:.1f} ms"
    )
