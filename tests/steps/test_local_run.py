"""A run on this machine that is killed takes its steps with it, and the next run ends it in MLflow."""

import os
import subprocess
import sys
import time

import pytest

from latentrec.steps.local_run import is_over, local_identity
from latentrec.steps.preflight import run_preflight
from tests.fixtures.review_files import grid, lines

STEP = """
import os, subprocess, sys, time
from latentrec.core import Interrupted
from latentrec.steps.local_run import local_identity
from latentrec.steps.status import step_status

if len(sys.argv) > 2:
    os.environ["LATENTREC_LOCAL_RUN"] = local_identity()
    subprocess.Popen([sys.executable, "-c", os.environ["STEP"], sys.argv[1]])
    time.sleep(600)
import signal
def stop(number, frame):
    raise Interrupted("saved")
signal.signal(signal.SIGTERM, stop)
with step_status("sft"):
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(600)
"""


def dead_process() -> str:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        return local_identity(process.pid)


def test_identity_is_of_one_process_of_one_machine():
    mine = local_identity()
    assert not is_over(mine)
    assert is_over(dead_process())
    assert is_over(mine[:-1] + str((int(mine[-1]) + 1) % 10)), "the same number, another process"
    assert not is_over(mine.replace(mine.split(":")[1], "elsewhere", 1)), "another machine: nobody knows"
    for text in ("", "local:", "latentr3-abc", "local:a:b:c"):
        assert not is_over(text)


def test_a_step_ends_when_its_run_was_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("STEP", STEP)
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-1")
    monkeypatch.setenv("LATENTREC_STATUS_ROOT", str(tmp_path / "status"))
    told = tmp_path / "pid"
    run = subprocess.Popen([sys.executable, "-c", STEP, str(told), "run"])
    deadline = time.monotonic() + 60
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.kill()
    run.wait()
    while "interrupted" not in (tmp_path / "status/run-1/sft.json").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while os.path.exists(f"/proc/{told.read_text()}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("over", [True, False])
def test_the_next_run_ends_in_mlflow_what_a_killed_one_left_open(tracked, tmp_path, monkeypatch, over):
    from latentrec.steps.step_run import step_run

    (tmp_path / "reviews.json").write_bytes(lines(grid(6, 4)))
    given = {"system": "lares", "data_reviews": str(tmp_path / "reviews.json")}
    monkeypatch.setenv("LATENTREC_LOCAL_RUN", dead_process() if over else local_identity())
    run_preflight(given)
    monkeypatch.delenv("LATENTREC_LOCAL_RUN")
    with step_run("sft"):
        (left,) = tracked.parents()
        monkeypatch.setenv("LATENTREC_RUN_ID", "run-2")
        monkeypatch.setenv("LATENTREC_LOCAL_RUN", local_identity())
        run_preflight(given)
        states = {run.info.run_id: run.info.status for run in tracked.parents()}
        assert states.pop(left.info.run_id) == ("KILLED" if over else "RUNNING")
        assert list(states.values()) == ["RUNNING"]
        assert [run.info.status for run in tracked.steps("sft")] == ["KILLED" if over else "RUNNING"]


def test_no_run_ends_before_it_began_whatever_the_clock_does(tracked, monkeypatch):
    from latentrec.steps.step_run import ensure_parent_run, finish_parent_run, step_run

    ensure_parent_run()
    with step_run("sft"):
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
    finish_parent_run("FINISHED")
    for run in tracked.runs():
        assert run.info.end_time >= run.info.start_time
