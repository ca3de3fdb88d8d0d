"""Call a ``latentrec`` command as a user would, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from typing import IO

import torch

from benchmarks.results.records import ROOT


def call(arguments: list[str], log: IO[str]) -> int:
    """Run ``latentrec ARGUMENTS`` with its output in ``log``; returns the exit code.

    A process that computes with one thread and without a GPU can be forked, which spares each command the
    seconds of importing torch, transformers and trl; otherwise a fresh interpreter is started.
    """
    if torch.get_num_threads() == 1 and not torch.cuda.is_available() and hasattr(os, "fork"):
        return _forked(arguments, log)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.call(
        [sys.executable, "-m", "latentrec", *arguments],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
    )


def _forked(arguments: list[str], log: IO[str]) -> int:
    from latentrec.cli import main
    from latentrec.training.latentr3 import grpo_trainer as latent_grpo_trainer  # noqa: F401 (imported once, here)

    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log  # type: ignore[assignment]
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        main(arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
