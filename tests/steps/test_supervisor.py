"""A worker that dies of something transient is started again, within bounds, and everybody is told."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from latentrec.core import Interrupted, UserError
from latentrec.steps import launch
from latentrec.steps.failures import is_transient
from latentrec.steps.launch import Supervisor
from latentrec.steps.status import read_step_statuses
from latentrec.storage import StorageError
from tests.errors import refused

WORKER = """
import os, signal, sys, time
from pathlib import Path
from latentrec.core import UserError
from latentrec.steps.status import exit_code_on_error, step_status
from latentrec.storage import StorageError

count = Path(sys.argv[1])
attempt = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (attempt + 1))
ends = sys.argv[2].split(",")
with exit_code_on_error(), step_status("sft"):
    end = ends[min(attempt, len(ends) - 1)]
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "store":
        raise StorageError("gs://bucket/x: no success within 120 s")
    if end == "bug":
        raise TypeError("a programming error")
    if end == "user":
        raise UserError("epochs is -1")
    if end == "sleep":
        time.sleep(60)
"""


@pytest.fixture
def step(monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTREC_STATUS_ROOT", str(tmp_path / "status"))
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-1")
    monkeypatch.setenv("LATENTREC_STEP", "sft")
    monkeypatch.setenv("LATENTREC_RESTART_DELAY_SECONDS", "0.01")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    return tmp_path


def run(step: Path, ends: str, restarts: int = 3) -> tuple[int, int]:
    """Exit code of the supervisor, and how many workers it started."""
    command = [sys.executable, "-c", WORKER, str(step / "count"), ends]
    code = Supervisor(command, restarts=restarts).run()
    return code, len((step / "count").read_text())


def status(step: Path):
    (found,) = read_step_statuses(str(step / "status"), "run-1")
    return found


def test_a_worker_killed_once_goes_on_and_the_status_says_so(step, caplog):
    with caplog.at_level(logging.WARNING):
        assert run(step, "kill,ok") == (0, 2)
    assert "restart 1 of 3 from the last checkpoint" in caplog.text
    found = status(step)
    assert (found.state, found.details["restarts"]) == ("succeeded", ["killed by SIGKILL"])
    assert found.started < found.ended


def test_memory_that_runs_out_twice_is_no_accident(step):
    code, started = run(step, "kill")
    assert (code, started) == (128 + signal.SIGKILL, 2)
    found = status(step)
    assert (found.state, found.error) == ("failed", "killed by SIGKILL (after 1 restarts)")


def test_an_object_store_that_is_away_is_waited_for_a_bounded_number_of_times(step):
    assert run(step, "store,store,ok") == (0, 3)
    (step / "count").unlink()
    assert run(step, "store", restarts=2) == (1, 3)
    found = status(step)
    assert found.state == "failed"
    assert len(found.details["restarts"]) == 2
    assert "no success within 120 s" in found.details["restarts"][0]


@pytest.mark.parametrize(("end", "code"), [("user", 2), ("bug", 1)])
def test_a_user_s_error_or_a_bug_is_never_tried_again(step, end, code):
    assert run(step, end) == (code, 1)
    assert "restarts" not in status(step).details


def test_a_supervisor_that_is_stopped_stops_its_worker_and_starts_no_other(step):
    program = textwrap.dedent(
        f"""
        import sys
        from latentrec.steps.launch import Supervisor
        command = [sys.executable, "-c", {WORKER!r}, {str(step / "count")!r}, "sleep"]
        sys.exit(Supervisor(command, restarts=3).run())
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    for _ in range(600):
        if (step / "status" / "run-1" / "sft.json").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert (step / "count").read_text() == "x"


class DistBackendError(RuntimeError):
    """torch's, by name."""


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (StorageError("away"), True),
        (ConnectionResetError("reset"), True),
        (TimeoutError("timed out"), True),
        (DistBackendError("NCCL error in: ..."), True),
        (RuntimeError("NCCL communicator was aborted"), True),
        (RuntimeError("CUDA error: unspecified launch failure"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (MemoryError(), False),
        (UserError("wrong"), False),
        (Interrupted("SIGTERM"), False),
        (KeyError("x"), False),
    ],
)
def test_what_may_pass_by_itself(error, transient):
    assert is_transient(error) is transient


def test_the_cause_counts_too_and_a_user_s_error_never():
    def failing(outer: Exception) -> Exception:
        try:
            try:
                raise ConnectionError("refused")
            except ConnectionError as inner:
                raise outer from inner
        except Exception as error:
            return error

    assert is_transient(failing(RuntimeError("the upload failed")))
    assert not is_transient(failing(UserError("no such bucket")))


def given(monkeypatch, count: object) -> None:
    told = json.dumps({"inputs": {"parameterValues": {"accelerator_count": count}}})
    monkeypatch.delenv("LATENTREC_GPUS", raising=False)
    monkeypatch.setattr(sys, "argv", ["/venv/kfp/dsl/executor_main.py", "--executor_input", told])


@pytest.mark.parametrize(("count", "promised"), [("2", 2), ("0", 0), ("", 0), (None, 0), (1.0, 1)])
def test_kfp_says_how_many_accelerators_the_pod_was_to_have(monkeypatch, count, promised):
    given(monkeypatch, count)
    assert launch.promised_accelerators() == promised


def test_a_step_that_sees_fewer_accelerators_than_promised_stops_at_once(monkeypatch):
    import torch

    given(monkeypatch, "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with refused("cluster.too_few_accelerators", "2", "1"):
        launch.check_accelerators()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launch.check_accelerators()


def test_a_step_on_a_cpu_node_asks_nobody(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    given(monkeypatch, "0")
    launch.check_accelerators()
    monkeypatch.setenv("LATENTREC_GPUS", "1")
    assert launch.promised_accelerators() == 1
    assert os.environ["LATENTREC_GPUS"] == "1"
