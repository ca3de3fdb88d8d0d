"""One training process for each accelerator of a pod: a component starts itself anew under torchrun.

KFP starts a component as one process (``kfp.dsl.executor_main``). Where the pod has several accelerators,
that process becomes torchrun, which runs the same command once for each of them. Rank 0 does what the one
process would have done; the others leave before KFP would have them write the step's outputs too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from latentrec.core import UserError
from latentrec.core.settings import PROCESSES_VARIABLE

"""How many processes, instead of one for each accelerator (two on a CPU, to try it)."""

_EXECUTOR = "kfp.dsl.executor_main"


def processes_wanted() -> int:
    """Processes that a distributed trainer should have here.

    Raises:
        UserError: ``LATENTREC_PROCESSES`` is no number from 1.
    """
    given = os.environ.get(PROCESSES_VARIABLE)
    if given:
        if not given.isdigit() or int(given) < 1:
            raise UserError(f"{PROCESSES_VARIABLE} is {given!r}, expected a whole number from 1")
        return int(given)
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 1


def launch_distributed() -> None:
    """Become torchrun where several processes are wanted; return in each of its workers, and where one is.

    A process that KFP's executor did not start returns too: commands are launched by their user.
    """
    started_by_kfp = Path(sys.argv[0]).stem == _EXECUTOR.rpartition(".")[2]
    if "RANK" in os.environ or not started_by_kfp:
        return
    count = processes_wanted()
    if count == 1:
        return
    import torch

    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command = [sys.executable, *launcher, "-m", _EXECUTOR, *sys.argv[1:]]
    print(f"launching {count} processes through torchrun", flush=True)
    os.execv(sys.executable, command)
