"""How a step's worker is started: one process or one for each accelerator, started again after a transient
failure.

KFP starts a component as one process (``kfp.dsl.executor_main``). Where the installation allows restarts
(``LATENTREC_MAX_RESTARTS``, set for the steps that resume from a checkpoint), that process becomes a
supervisor: it runs the same command as its worker and waits. Where the pod has several accelerators, the
worker is torchrun, which runs the command once for each of them. Rank 0 does what the one process would
have done.

KFP's own retry is for lost pods: since June 2026 its Argo settings never retry a failed container.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from latentrec.core import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UserError
from latentrec.core.settings import (
    GPUS_VARIABLE,
    MAX_RESTARTS_VARIABLE,
    PROCESSES_VARIABLE,
    RESTART_DELAY_VARIABLE,
    RESTARTS_VARIABLE,
    WORKER_REPORT_VARIABLE,
)
from latentrec.steps.failures import read_report
from latentrec.steps.pods import POD_VARIABLE
from latentrec.steps.status import close_lost_status

logger = logging.getLogger(__name__)

DELAY_S = 10.0
"""Pause before the first restart; twice as long before each further one."""

MAX_KILLS = 1
"""Restarts after the worker was killed: memory that runs out twice runs out a third time."""

EXECUTOR = "kfp.dsl.executor_main"
"""What KFP starts a lightweight component with."""


def processes_wanted() -> int:
    """Processes that a distributed trainer should have here.

    Raises:
        UserError: ``LATENTREC_PROCESSES`` is no number from 1.
    """
    given = os.environ.get(PROCESSES_VARIABLE)
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise UserError(
                f"{PROCESSES_VARIABLE} is {given!r}, expected a whole number from 1", code="config.bad_value"
            )
        return int(given)
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 1


def promised_accelerators() -> int:
    """Accelerators that KFP was asked for, from the step's own input; 0 where nothing was promised.

    KFP hands the limit of the pod's accelerators to the step as ``accelerator_count``.
    """
    given: Any = os.environ.get(GPUS_VARIABLE)
    if not given and "--executor_input" in sys.argv[:-1]:
        try:
            inputs = json.loads(sys.argv[sys.argv.index("--executor_input") + 1]).get("inputs", {})
        except ValueError:
            return 0
        given = inputs.get("parameterValues", {}).get("accelerator_count")
    try:
        return int(float(given or 0))
    except (TypeError, ValueError):
        return 0


def check_accelerators() -> None:
    """Stop at once where the pod has fewer accelerators than the run asked for.

    Raises:
        UserError: saying how many were promised and how many are there.
    """
    promised = promised_accelerators()
    if promised == 0:
        return
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there < promised:
        raise UserError(
            f"this step was promised {promised} accelerator(s) and sees {there}: the pod has no limit on "
            "nvidia.com/gpu, or the driver's libraries are not found (on GKE: node pool with "
            "gpu_driver_version, LD_LIBRARY_PATH=/usr/local/nvidia/lib64), or the image is built for CPU; "
            "gpu_count=0 trains on CPU nodes",
            code="cluster.too_few_accelerators",
        )


def launch_worker(*, distributed: bool) -> None:
    """Start this component's worker and leave with its exit code; return in the worker itself.

    Returns too in a process that KFP's executor did not start (commands are launched by their user), and
    where one process without restarts is all that is wanted: outside a cluster nothing restarts a step.

    Args:
        distributed: whether the trainer can have one process for each accelerator.
    """
    started_by_kfp = Path(sys.argv[0]).stem == EXECUTOR.rpartition(".")[2]
    if "RANK" in os.environ or WORKER_REPORT_VARIABLE in os.environ or not started_by_kfp:
        return
    if distributed and os.environ.get(POD_VARIABLE):
        from latentrec.steps.several_nodes import nodes_wanted, run_on_nodes

        if (nodes := nodes_wanted()).count > 1:
            raise SystemExit(run_on_nodes(nodes))
    count = processes_wanted() if distributed else 1
    restarts = _number(MAX_RESTARTS_VARIABLE, 0) if os.environ.get(POD_VARIABLE) else 0
    if count == 1 and restarts == 0:
        return
    command = _worker_command(count)
    if restarts == 0:
        os.execv(sys.executable, command)
    raise SystemExit(Supervisor(command, restarts=restarts, torchrun=count > 1).run())


def _worker_command(count: int) -> list[str]:
    if count == 1:
        return [sys.executable, "-m", EXECUTOR, *sys.argv[1:]]
    prepare_torchrun(count)
    logger.info("launching %s processes through torchrun", count)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return [sys.executable, *launcher, "-m", EXECUTOR, *sys.argv[1:]]


def prepare_torchrun(count: int) -> None:
    """Set what the workers of a node share: no GPU, no CUDA; and the node's cores among them."""
    import torch

    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))


@dataclass
class Supervisor:
    """Runs a worker, and again after a transient failure.

    Attributes:
        command: of the worker.
        restarts: how often it may be started again.
        torchrun: whether the command is torchrun, which hides how its workers ended.
        keeps_status: whether the step's status is this worker's to close; on one node of several.
        error: how the last worker failed, in one line.
    """

    command: list[str]
    restarts: int
    torchrun: bool = False
    keeps_status: bool = True
    error: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    _stopping: bool = False
    _worker: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run the worker until it succeeds, fails for good, or has used up its restarts; its exit code."""
        handlers = {
            number: signal.signal(number, self._pass_on) for number in (signal.SIGTERM, signal.SIGINT)
        }
        began = time.time()
        try:
            while True:
                code, reason = self._run_once(began)
                if code == 0 or reason is None:
                    return code
                if self._stopping or not self._may_restart(code):
                    if self.keeps_status:
                        close_lost_status(f"{reason}{self._reported()}")
                    return code
                delay = _delay(len(self.history))
                self.history.append({"reason": reason, "at": time.time(), "exit_code": code})
                logger.warning(
                    "worker failed (%s); restart %s of %s from the last checkpoint in %.0f s",
                    reason,
                    len(self.history),
                    self.restarts,
                    delay,
                )
                time.sleep(delay)
                if self._stopping:
                    return EXIT_INTERRUPTED
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _run_once(self, began: float) -> tuple[int, str | None]:
        """Exit code of one worker, and why it failed if that may be transient."""
        with tempfile.TemporaryDirectory(prefix="latentrec-worker-") as folder:
            report = Path(folder) / "failure.json"
            reported = json.dumps({"began": began, "restarts": self.history})
            environment = {**os.environ, WORKER_REPORT_VARIABLE: str(report), RESTARTS_VARIABLE: reported}
            self._worker = subprocess.Popen(self.command, env=environment)
            code = self._worker.wait()
            failure = read_report(report)
        if code == 0:
            return 0, None
        self.error = failure.error if failure else f"exit code {code}, and nothing reported"
        if failure is not None:
            code = failure.exit_code
            transient = failure.transient and code not in (EXIT_BAD_INPUT, EXIT_INTERRUPTED)
            return code, failure.error if transient else None
        if code < 0:
            return 128 - code, f"killed by {signal.Signals(-code).name}"
        return code, "a worker process was killed" if self.torchrun else None

    def _may_restart(self, code: int) -> bool:
        killed = [entry for entry in self.history if entry["exit_code"] > 128 or self.torchrun]
        if code > 128 and len(killed) >= MAX_KILLS:
            return False
        return len(self.history) < self.restarts

    def _reported(self) -> str:
        return f" (after {len(self.history)} restarts)" if self.history else ""

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._worker is not None and self._worker.poll() is None:
            self._worker.send_signal(number)


def _delay(made: int) -> float:
    given = os.environ.get(RESTART_DELAY_VARIABLE)
    return float(given if given else DELAY_S) * 2**made


def _number(name: str, default: int) -> int:
    given = os.environ.get(name, "")
    if not given:
        return default
    if not given.isdecimal():
        raise UserError(f"{name} is {given!r}, expected a whole number from 0", code="config.bad_value")
    return int(given)
