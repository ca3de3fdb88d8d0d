"""Our SASRec against RecBole's: the same samples, width, layers, heads, length, loss and early stopping.

Leave-one-out on a seeded subset of users, the whole catalogue ranked, nothing masked. RecBole is installed
by whoever runs this, in an environment of its own; the project does not depend on it.

    python -m benchmarks.recbole --data DIR --recbole-python VENV/bin/python --work DIR

``--data`` is the folder with ``amazon2018/…`` (``RESULTS_DATA``), ``--recbole-python`` (``RECBOLE_PYTHON``)
an interpreter that imports RecBole (1.2.1 needs ``numpy<2`` and ``pandas<3`` beside it). What is done
already under ``--work`` is not done again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.harness import record
from benchmarks.recbole.compare import Setup, compare, train_both

NAME = "sasrec_vs_recbole"


def main() -> None:
    """Train both sides for every seed, compare their ranks, and record the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recbole",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data, python = os.environ.get("RESULTS_DATA"), os.environ.get("RECBOLE_PYTHON")
    parser.add_argument("--data", type=Path, default=data, required=not data)
    parser.add_argument("--recbole-python", type=Path, default=python, required=not python)
    parser.add_argument("--work", type=Path, required=True, help="datasets, models and logs go there")
    parser.add_argument("--users", type=int, default=12_000, help="drawn with seed 42")
    parser.add_argument("--max-history", type=int, default=10, help="longest history, of both sides")
    parser.add_argument("--patience", type=int, default=10, help="epochs without a better validation NDCG@10")
    parser.add_argument("--max-epochs", type=int, default=200)
    parser.add_argument(
        "--recbole-batches",
        type=int,
        nargs="+",
        default=[2048],
        help="batch sizes that RecBole is given; the best on validation counts (its own default: 2048)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()
    setup = Setup(
        data=arguments.data,
        python=arguments.recbole_python,
        work=arguments.work / f"games-{arguments.users}-{arguments.max_history}",
        users=arguments.users,
        max_history=arguments.max_history,
        patience=arguments.patience,
        max_epochs=arguments.max_epochs,
        recbole_batches=tuple(arguments.recbole_batches),
    )
    sides = {seed: train_both(setup, seed) for seed in arguments.seeds}
    found = compare(setup, sides)
    batches, seeds = (" ".join(map(str, x)) for x in (arguments.recbole_batches, arguments.seeds))
    record(
        NAME,
        found["ours NDCG@10"],
        found["RecBole NDCG@10"],
        "NDCG@10",
        len(sides),
        found["sizes"],
        lower_is_better=False,
        table=found["table"],
        reference_is=found["reference"],
        note=found["note"],
        command=f"python -m benchmarks.recbole --users {arguments.users}"
        f" --max-history {arguments.max_history} --patience {arguments.patience}"
        f" --max-epochs {arguments.max_epochs} --recbole-batches {batches}"
        f" --seeds {seeds}",
        runs=found["runs"],
    )


if __name__ == "__main__":
    main()
