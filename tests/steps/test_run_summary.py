"""The exit handler's Markdown: verdict, each step with its duration and GPU hours, links both ways."""

import json

import pytest

from latentrec.steps.run_summary import render_summary, write_run_summary
from latentrec.steps.status import StepStatus, read_step_statuses
from latentrec.steps.verdict import Outcome, RunVerdict, decide
from tests.errors import refused

STEPS = ["preflight", "data_prep", "sft", "evaluate", "register"]


def done(step, seconds=10.0, devices=0, **details):
    return StepStatus(step, "succeeded", 1000.0, 1000.0 + seconds, seconds * devices, details=details)


GOOD = [
    done("preflight", mlflow_parent_run_id="abc"),
    done("data_prep", counts={"samples": 12345}),
    done("sft", seconds=7200, devices=4),
    done("evaluate", seconds=3600, devices=1, promote=True, verdict="better by 0.01 [0.002, 0.02]"),
    done("register", registered="models:/latentr3/7", served_as="d3", verdict="promoted"),
]


def rendered(state: str, statuses: list[StepStatus]) -> str:
    return render_summary("run-1", statuses, decide(state, statuses, STEPS), steps=STEPS)


def test_a_good_run_tells_verdict_durations_and_gpu_hours():
    told = rendered("COMPLETE", GOOD)
    assert told.splitlines()[0] == "# Run run-1: succeeded"
    assert "Gate: **promote**. better by 0.01 [0.002, 0.02]" in told
    assert "Registered: `models:/latentr3/7`" in told
    assert "| sft | ✓ succeeded | 7,200.0 s | 8.000 |" in told
    assert "| data_prep | ✓ succeeded | 10.0 s | 0.000 | samples 12,345 |" in told
    assert "GPU hours: 9.00" in told


def test_the_step_that_failed_is_named_with_its_reason():
    bad = StepStatus("sft", "failed", 1000.0, 1060.0, 60.0, error="CUDA out of memory")
    told = rendered("FAILED", [*GOOD[:2], bad])
    assert told.splitlines()[0] == "# Run run-1: failed"
    assert "**sft** failed: CUDA out of memory" in told
    assert "| evaluate | – | | | from the cache, or not reached |" in told


def test_a_step_that_vanished_is_told_from_one_that_failed():
    """A pod that is killed writes nothing more: its status says "running" for ever."""
    told = rendered("FAILED", [*GOOD[:2], StepStatus("sft", started=1000.0)])
    assert "**sft** began and never ended: killed, evicted or out of memory" in told


def test_what_is_no_status_in_the_folder_of_statuses_is_none(tmp_path):
    """A bucket's console makes an object of no bytes for a folder; file managers hide files of theirs."""
    folder = tmp_path / "run-1"
    folder.mkdir()
    (folder / "sft.json").write_text(json.dumps({"step": "sft", "state": "succeeded"}))
    for name in (".DS_Store", "_temporary", "notes.txt", "sft.json.bak"):
        (folder / name).write_bytes(b"\0\0\0\1Bud1")
    assert [status.step for status in read_step_statuses(str(tmp_path), "run-1")] == ["sft"]


def test_a_run_whose_pods_never_started_points_to_their_events():
    told = rendered("FAILED", [])
    assert "events and logs" in told


@pytest.mark.parametrize(
    ("ui", "tracking", "link"),
    [
        (
            "https://mlflow.example",
            "http://mlflow.inside:5000",
            "[MLflow run](https://mlflow.example/#/runs/abc)",
        ),
        ("", "http://mlflow.inside:5000", "[MLflow run](http://mlflow.inside:5000/#/runs/abc)"),
        ("", "sqlite:///mlflow.db", "[MLflow run abc in](sqlite:///mlflow.db)"),
    ],
)
def test_summary_leads_to_mlflow_s_run(ui, tracking, link, tmp_path, monkeypatch):
    status = tmp_path / "status" / "run-1"
    status.mkdir(parents=True)
    written = {"step": "preflight", "state": "succeeded", "details": {"mlflow_parent_run_id": "abc"}}
    (status / "preflight.json").write_text(json.dumps({"started": 1.0, "ended": 2.0, **written}))
    for name, value in {
        "LATENTREC_STATUS_ROOT": str(tmp_path / "status"),
        "LATENTREC_RUN_ID": "run-1",
        "LATENTREC_MLFLOW_UI": ui,
        "MLFLOW_TRACKING_URI": tracking,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("latentrec.steps.step_run.finish_parent_run", lambda *_, **__: None)
    write_run_summary(tmp_path / "summary.md", steps=STEPS, state="SUCCEEDED")
    assert f"- {link}" in (tmp_path / "summary.md").read_text()


def test_a_tracking_server_that_is_away_does_not_spoil_the_summary(tmp_path, monkeypatch, caplog):
    def away(*_, **__):
        raise ConnectionError("refused")

    monkeypatch.setenv("LATENTREC_STATUS_ROOT", str(tmp_path / "status"))
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-1")
    monkeypatch.setattr("latentrec.steps.step_run.finish_parent_run", away)
    write_run_summary(tmp_path / "summary.md", steps=STEPS, state="FAILED")
    assert "# Run run-1: failed" in (tmp_path / "summary.md").read_text()
    assert "(refused)" in caplog.text


def test_outside_of_a_run_there_is_nothing_to_summarize(tmp_path, monkeypatch):
    monkeypatch.delenv("LATENTREC_RUN_ID", raising=False)
    with refused("run.not_found"):
        write_run_summary(tmp_path / "summary.md")


def test_a_filter_s_count_is_not_told_as_a_count_of_duplicates(tmp_path):
    details = {"counts": {"duplicates": 2308, "k_core": 2293, "repeats": 18, "users": 161}}
    statuses = [StepStatus("data_prep", "succeeded", 1.0, 2.0, details=details)]
    text = render_summary("run-1", statuses, RunVerdict(Outcome.SUCCEEDED))
    assert "repeats 18, users 161" in text
    assert "duplicates" not in text
