"""``python -m benchmarks.results``: run what is missing, then write the page."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from benchmarks.results import stage2
from benchmarks.results.datasets import DATASETS
from benchmarks.results.page import write_page
from benchmarks.results.plan import CELLS, SEEDS
from benchmarks.results.records import ROOT, record_path
from benchmarks.results.run import Runner
from latentrec.steps.status import exit_code_on_error


def main() -> None:
    """Run cells seed by seed, so that a run cut short still compares all systems."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("RESULTS_DATA", ROOT / "../shared/data"))
    )
    parser.add_argument("--work", type=Path, default=ROOT / os.environ.get("RUNS_DIR", "runs") / "results")
    parser.add_argument(
        "--profile",
        default=os.environ.get("PROFILE", "cpu"),
        choices=("cpu", "gpu", "pretrained"),
        help="whose datasets",
    )
    parser.add_argument("--datasets", nargs="+", choices=list(DATASETS), help="default: the profile's")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no cell after so long")
    parser.add_argument("--page-only", action="store_true", help="only write docs/results.md again")
    arguments = parser.parse_args()
    profile = [name for name, plan in DATASETS.items() if plan.profile == arguments.profile]
    deadline = time.monotonic() + 60 * arguments.minutes
    with exit_code_on_error():
        if not arguments.page_only:
            runner = Runner(arguments.data.resolve(), arguments.work)
            for seed in arguments.seeds:
                for dataset in arguments.datasets or profile:
                    for cell in arguments.cells:
                        if time.monotonic() > deadline:
                            break
                        if runner.run(dataset, cell, seed):
                            print(f"done: {record_path(dataset, cell, seed).relative_to(ROOT)}", flush=True)
            stage2.measure_all(arguments.datasets or profile, arguments.seeds, arguments.work, deadline)
        print(f"wrote {write_page().relative_to(ROOT)}")


main()
