"""How a local run differs from one on a cluster."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.dags import pipeline_of
from pipeline.local_runner import tried_once

ROOT = Path(__file__).resolve().parents[2]
WAITING = """
import sys
from pathlib import Path
from kfp import dsl
from pipeline import local_runner
from tests.pipeline.kfp_steps import waits

@dsl.pipeline(name="waiting")
def waiting(folder: str) -> None:
    waits(folder=folder).set_env_variable("LATENTREC_STEP", "sft")

local_runner.pipeline_of = lambda system: waiting
folder = Path(sys.argv[1])
outcome = local_runner.run_pipeline("waiting", {"folder": str(folder)}, local_runner.RunFolders(folder))
assert outcome.interrupted and not outcome.succeeded
"""


DROPPED = """
import signal, subprocess, sys
from pathlib import Path
from pipeline.stop_request import StopRequest

ignores = "from signal import *; signal(SIGTERM, SIG_IGN); print(flush=True); import time; time.sleep(600)"
stop = StopRequest(float(sys.argv[2]))
with stop.on_signals():
    step = subprocess.Popen([sys.executable, "-c", ignores], stdout=subprocess.PIPE)
    step.stdout.readline()
    Path(sys.argv[1]).touch()
    while step.poll() is None:
        try:
            step.wait()
        except KeyboardInterrupt:
            pass  # as Python itself drops one that is raised in a __del__
assert stop.requested
"""


def retries(pipeline) -> dict[str, int]:
    spec = pipeline.pipeline_spec
    return {
        name: task.retry_policy.max_retry_count
        for part in (spec.root, *spec.components.values())
        if part.HasField("dag")
        for name, task in part.dag.tasks.items()
        if task.HasField("retry_policy")
    }


def test_local_run_tries_each_step_once_and_leaves_the_pipeline_as_it_was():
    pipeline = pipeline_of("recone")
    assert retries(pipeline)["cold-start-sft"] == 3
    with tried_once(pipeline) as changed:
        assert changed is pipeline
        assert retries(pipeline) == {}
    assert retries(pipeline)["cold-start-sft"] == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_behind(tmp_path, number):
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script, tmp_path], cwd=ROOT, env=environment) as run:
        deadline = time.monotonic() + 120
        while not (tmp_path / "waiting").exists():
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.1)
        steps = psutil.Process(run.pid).children(recursive=True)
        assert steps
        os.kill(run.pid, number)
        _, alive = psutil.wait_procs(steps, timeout=25)
        assert not alive, "a stop takes seconds"
        assert run.wait(timeout=60) == 0


def started(tmp_path, seconds: float) -> subprocess.Popen:
    script, begun = tmp_path / "dropped.py", tmp_path / "begun"
    script.write_text(DROPPED)
    command = [sys.executable, script, begun, str(seconds)]
    run = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while not begun.exists():
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_dropped_interrupt_and_a_step_that_ignores_sigterm_end_too(tmp_path, number):
    with started(tmp_path, 1.0) as run:
        run.send_signal(number)
        assert run.wait(timeout=20) == 0


def test_a_second_signal_waits_for_nothing(tmp_path):
    with started(tmp_path, 600.0) as run:
        (step,) = psutil.Process(run.pid).children()
        run.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert run.poll() is None
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=20) == 130
        assert not step.is_running() or step.status() == psutil.STATUS_ZOMBIE
