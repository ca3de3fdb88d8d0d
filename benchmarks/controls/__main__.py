"""``python -m benchmarks.controls prepare|run|page``: see the package's description."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.controls.pool import read_queue, run_queue
from benchmarks.controls.records import ROOT


def main() -> None:
    """Prepare datasets, or run a queue of trials."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.controls", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="raw files to dataset directories")
    prepare.add_argument("--data", type=Path, required=True)
    prepare.add_argument("--datasets", type=Path, required=True)
    run = commands.add_parser("run", help="run a queue of trials")
    run.add_argument("--datasets", type=Path, required=True)
    run.add_argument("--work", type=Path, default=ROOT / "runs" / "controls")
    run.add_argument("--queue", type=Path, required=True)
    run.add_argument("--jobs", type=int, default=1)
    run.add_argument("--gpu-jobs", type=int, default=0)
    run.add_argument("--minutes", type=float, default=float("inf"))
    commands.add_parser("page", help="put the tables into docs/research/latent-controls.md")
    arguments = parser.parse_args()
    if arguments.command == "page":
        from benchmarks.controls.page import write_page

        write_page()
        return
    if arguments.command == "prepare":
        from benchmarks.controls.datasets import prepare as prepare_datasets

        prepare_datasets(arguments.data, arguments.datasets)
        return
    run_queue(
        read_queue(arguments.queue),
        datasets=arguments.datasets.resolve(),
        work=arguments.work.resolve(),
        jobs=arguments.jobs,
        gpu_jobs=arguments.gpu_jobs,
        minutes=arguments.minutes,
        test_log=ROOT / "docs" / "results" / "test-split.log",
    )


if __name__ == "__main__":
    main()
