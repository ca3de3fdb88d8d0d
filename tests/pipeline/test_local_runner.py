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
