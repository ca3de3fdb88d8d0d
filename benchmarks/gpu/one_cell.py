"""One result cell in this process: commands are called and not started, which spares their imports."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import IO

from benchmarks.results import run as results_run


def call(arguments: list[str], log: IO[str]) -> int:
    """``latentrec ARGUMENTS`` in this process, its output in ``log``; returns the exit code."""
    from latentrec.cli import main

    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            main(arguments)
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def run() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("cell")
    parser.add_argument("seed", type=int)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    results_run.call = call
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    ran = results_run.Runner(work, work).run(given.dataset, given.cell, given.seed)
    print(f"{given.cell}: {'done' if ran else 'was done before'}")
    sys.stdout.flush()


if __name__ == "__main__":
    run()
