"""A run's tasks as the API gives them: small answers of its shape, and the recorded ones where they are."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from kfp_server_api import ApiClient

from pipeline.run_states import TaskState, is_final, task_states

RECORDS = Path(__file__).resolve().parents[3] / "shared/reference/kfp/rest"


def parsed(answer: dict):
    """The run as the client's library would return it."""
    return ApiClient().deserialize(SimpleNamespace(data=json.dumps(answer)), "V2beta1Run")


def run(*entries: dict, state: str = "SUCCEEDED"):
    return parsed({"run_id": "r", "state": state, "run_details": {"task_details": list(entries)}})


def entry(name: str | None, state: str | None = "SUCCEEDED", *seen: str, seconds: int = 10) -> dict:
    found: dict = {"task_id": "t", "start_time": "2026-01-05T03:00:00Z", "state_history": []}
    found["end_time"] = f"2026-01-05T03:00:{seconds:02d}Z"
    found["state_history"] = [{"state": word, "update_time": "2026-01-05T03:00:00Z"} for word in seen]
    return found | ({"display_name": name} if name else {}) | ({"state": state} if state else {})


def test_drivers_executors_and_entries_without_a_name_are_left_out():
    found = run(
        entry("preflight", "SUCCEEDED", "RUNNING", "SUCCEEDED"),
        entry("preflight(0)"),
        entry("preflight-driver"),
        entry("executor"),
        entry(None),
        entry("grpo", None),
    )
    assert task_states(found) == {
        "preflight": TaskState("SUCCEEDED", False, 1),
        "grpo": TaskState("", False, 1),
    }


def test_attempts_are_counted_and_display_names_are_the_same_task():
    found = run(entry("Prepare data", "RUNNING"), entry("prepare-data(0)"), entry("prepare-data(1)"))
    assert task_states(found)["prepare-data"].attempts == 2


@pytest.mark.parametrize(
    ("given", "cached"),
    [
        (entry("data-prep", "SUCCEEDED", "SUCCEEDED", seconds=0), True),
        (entry("data-prep", "SKIPPED"), True),
        (entry("data-prep", "SUCCEEDED", "RUNNING", "SUCCEEDED"), False),
        (entry("data-prep", "SUCCEEDED", "SUCCEEDED", seconds=9), False),  # too quick to be seen running
    ],
)
def test_what_comes_from_the_cache_takes_no_time_and_never_runs(given, cached):
    assert task_states(run(given))["data-prep"].cached is cached


def test_a_run_without_details_or_state_is_not_final():
    assert task_states(parsed({"run_id": "r"})) == {}
    assert not is_final(parsed({"run_id": "r"}))


def recorded(name: str):
    path = RECORDS / f"run-{name}.json"
    if not path.is_file():
        pytest.skip(f"the recorded answers are not here: {RECORDS}")
    return parsed(json.loads(path.read_text(encoding="utf-8")))


def test_recorded_cached_run():
    found = task_states(recorded("cached"))
    cached = {name for name, task in found.items() if task.cached}
    assert {"data-prep", "sft", "sft-2", "grpo", "train-sequential", "train-sequential-2"} <= cached
    assert not cached & {"preflight", "evaluate", "register", "run-summary"}


@pytest.mark.parametrize(
    ("name", "final"),
    [("succeeded", True), ("terminated", True), ("preflight-failed", True), ("mlflow-plugin-clash", False)],
)
def test_recorded_runs_are_read(name, final):
    run = recorded(name)
    assert is_final(run) is final
    states = task_states(run)
    assert states["preflight"].state in ("SUCCEEDED", "FAILED")
    assert not any(task.cached for task in states.values())


def test_recorded_lost_pod_and_termination():
    states = task_states(recorded("terminated"))
    assert states["sft"].state == states["sft-2"].state == "FAILED"
    assert states["run-summary"].state == "SUCCEEDED"
    assert states["evaluate"].state == ""
