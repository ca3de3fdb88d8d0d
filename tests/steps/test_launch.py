"""Workers of a step, one for each accelerator: with which command, and who writes the outputs."""

import os
import sys
from types import SimpleNamespace

import pytest

from latentrec.core import UserError
from latentrec.steps import launch
from latentrec.steps.runtime import open_step
from tests.errors import refused

SFT = {"backbone": "micro"}


@pytest.fixture
def started(monkeypatch):
    """Pretend that KFP's executor has started this process; what it becomes is told instead of done."""
    became = []
    for name in ("PROCESSES", "MAX_RESTARTS", "WORKER_REPORT", "GPUS"):
        monkeypatch.delenv(f"LATENTREC_{name}", raising=False)
    for name in ("RANK", "ACCELERATE_USE_CPU", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "argv", ["/venv/kfp/dsl/executor_main.py", "--executor_input", "{}"])

    def become(path, command):
        became.append(command)
        raise SystemExit(0)

    monkeypatch.setattr(launch.os, "execv", become)
    return became


def test_a_pod_with_several_accelerators_becomes_torchrun(started, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(SystemExit):
        launch.launch_worker(distributed=True)
    (command,) = started
    assert command[:5] == [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=4",
    ]
    assert command[5:] == ["-m", "kfp.dsl.executor_main", "--executor_input", "{}"]
    assert "ACCELERATE_USE_CPU" not in os.environ


def test_one_accelerator_or_none_trains_in_the_process_that_there_is(started, monkeypatch):
    import torch

    launch.launch_worker(distributed=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    launch.launch_worker(distributed=True)
    assert not started


@pytest.mark.parametrize("worker", [True, False])
def test_a_worker_of_torchrun_and_a_command_by_hand_are_left_alone(started, monkeypatch, worker):
    monkeypatch.setenv("LATENTREC_PROCESSES", "2")
    if worker:
        monkeypatch.setenv("RANK", "0")
    else:
        monkeypatch.setattr(sys, "argv", ["/venv/bin/latentrec", "sft"])
    launch.launch_worker(distributed=True)
    assert not started


@pytest.mark.parametrize("in_pod", [True, False])
def test_a_step_that_resumes_watches_its_worker_in_a_pod_and_nowhere_else(started, monkeypatch, in_pod):
    watched = []
    monkeypatch.setenv("LATENTREC_MAX_RESTARTS", "3")
    monkeypatch.setattr(launch.Supervisor, "run", lambda self: watched.append(self) or 0)
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    if in_pod:
        monkeypatch.setenv("KFP_POD_NAME", "pod")
        with pytest.raises(SystemExit) as left:
            launch.launch_worker(distributed=False)
        assert left.value.code == 0
        (supervisor,) = watched
        assert supervisor.restarts == 3
        assert supervisor.command[1:] == ["-m", "kfp.dsl.executor_main", "--executor_input", "{}"]
    else:
        launch.launch_worker(distributed=False)
        assert not watched


@pytest.mark.parametrize("value", ["two", "0", "-1"])
def test_a_number_of_processes_that_is_none_is_refused(started, monkeypatch, value):
    monkeypatch.setenv("LATENTREC_PROCESSES", value)
    with refused("config.bad_value", "LATENTREC_PROCESSES", f"'{value}'"):
        launch.launch_worker(distributed=True)


@pytest.mark.parametrize(("rank", "goes_on"), [("0", True), ("1", False)])
def test_rank_0_alone_comes_back_to_write_the_outputs(started, monkeypatch, rank, goes_on):
    """A component's body goes on after its step in rank 0 only; KFP then writes what it returned."""
    monkeypatch.setenv("RANK", rank)
    reached = []

    def body():
        with open_step("sft", SFT, distributed=True) as step:
            step.finish(SimpleNamespace(metadata={}, path="model"), None)
        reached.append(rank)

    if goes_on:
        body()
    else:
        with pytest.raises(SystemExit) as left:
            body()
        assert left.value.code == 0
    assert bool(reached) == goes_on


def test_a_failure_in_a_worker_is_not_taken_for_its_orderly_leave(started, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as left, open_step("sft", SFT, distributed=True):
        raise UserError("no such dataset")
    assert left.value.code == 2
