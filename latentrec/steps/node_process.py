"""What each pod of a TrainJob runs: ``python -m latentrec.steps.node_process SOURCE -- EXECUTOR-ARGUMENTS``.

It fetches the step's input artifacts, starts torchrun with KFP's executor as its script (torchrun reads the
nodes, their order and the first one's address from ``PET_*``, which Kubeflow Trainer sets), and on the first
node puts the outputs into storage. How it failed is Kubernetes' message of the pod.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from latentrec.core import EXIT_INTERRUPTED
from latentrec.steps.kfp_files import artifacts, executor_input, fetch, send_outputs
from latentrec.steps.launch import EXECUTOR, Supervisor, check_accelerators, prepare_torchrun
from latentrec.steps.status import exit_code_on_error

logger = logging.getLogger(__name__)

TERMINATION_LOG = Path("/dev/termination-log")
"""Kubernetes reads a container's last message here."""
_MOST = 4000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this node's part of the training; leaves with the worker's exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with exit_code_on_error():
        try:
            source, executor = given[0], given[2:]
            step = executor_input(executor)
            check_accelerators()
            for uri in artifacts(step, "inputs"):
                fetch(uri)
            with tempfile.TemporaryDirectory(prefix="latentrec-component-") as folder:
                module = Path(folder) / "ephemeral_component.py"
                module.write_text(source, encoding="utf-8")
                code, error = _train(["--component_module_path", str(module), *executor])
            if code == 0 and node_rank() == 0:
                send_outputs(step)
        except Exception as problem:
            _leave_message(str(problem) or type(problem).__name__)
            raise
        if code:
            _leave_message(error or ("stopped" if code == EXIT_INTERRUPTED else f"exit code {code}"))
            raise SystemExit(code)


def node_rank() -> int:
    """This node's place among the job's."""
    return int(os.environ.get("PET_NODE_RANK") or 0)


def _train(executor: Sequence[str]) -> tuple[int, str]:
    """Exit code of this node's workers, and their error in one line."""
    prepare_torchrun(int(os.environ.get("PET_NPROC_PER_NODE") or 1))
    worker = Supervisor(
        [sys.executable, "-m", "torch.distributed.run", "-m", EXECUTOR, *executor],
        restarts=0,
        torchrun=True,
        keeps_status=node_rank() == 0,
    )
    return worker.run(), worker.error


def _leave_message(text: str) -> None:
    try:
        TERMINATION_LOG.write_text(" ".join(text.split())[:_MOST], encoding="utf-8")
    except OSError as error:
        logger.debug("no message for Kubernetes (%s)", error)


if __name__ == "__main__":
    main()
