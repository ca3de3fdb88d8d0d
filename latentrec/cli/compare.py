"""``latentrec compare``: two pipeline runs or evaluations, on the samples that both have."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from latentrec.core import UserError
from latentrec.core.settings import STATUS_ROOT_VARIABLE
from latentrec.evaluation.compare import EvaluatedModel, RunComparison, compare_runs
from latentrec.evaluation.gate_decision import LABELS
from latentrec.steps.status import read_step_statuses

_EXPLAINED = "a pipeline run's id, or an evaluation directory; several with commas are training runs (seeds)"


_NAMES = {"item_ndcg_at_10": "item NDCG@10", "mae": "MAE"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("first", metavar="RUN", help=f"{_EXPLAINED}; RUN@MODEL names another model of it")
    parser.add_argument("second", metavar="RUN", help="what is compared with it, likewise")
    parser.add_argument("--n-resamples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    parser.add_argument("--seed", type=int, default=42, help="of the resampling (default: 42)")


def run(namespace: argparse.Namespace) -> None:
    """Compare the two evaluations; print the table and a sentence on the difference."""
    if namespace.n_resamples < 100:
        raise UserError(
            f"--n-resamples is {namespace.n_resamples}, expected at least 100", code="config.bad_value"
        )
    found = compare_runs(
        [_evaluated(text) for text in namespace.first.split(",")],
        [_evaluated(text) for text in namespace.second.split(",")],
        n_resamples=namespace.n_resamples,
        seed=namespace.seed,
    )
    print(_rendered(found))


def _evaluated(text: str) -> EvaluatedModel:
    place, _, model = text.strip().partition("@")
    directory = Path(place).expanduser()
    if not (directory / "manifest.json").is_file():
        directory = _evaluation_of_run(place)
    return EvaluatedModel(directory, model or None)


def _evaluation_of_run(run_id: str) -> Path:
    runs = os.environ.get("RUNS_DIR") or "runs"
    root = os.environ.get(STATUS_ROOT_VARIABLE) or str(Path(runs) / "status")
    for status in read_step_statuses(root, run_id) if run_id and "/" not in run_id else ():
        output = status.details.get("output")
        if status.step == "evaluate" and output and Path(output).is_dir():
            return Path(output)
    raise UserError(
        f"{run_id!r} is neither an evaluation directory nor a run in {root} that has evaluated",
        code="evaluation.not_found",
    )


def _rendered(found: RunComparison) -> str:
    which = "" if found.same_dataset else " (of different datasets)"
    lines = [
        f"{found.second} against {found.first}",
        f"{found.n_samples:,} samples of {found.n_users:,} users that both have{which}",
        f"{'metric':<16}{'first':>9}{'second':>9}{'difference':>12}   95 % interval          second is",
    ]
    for row in found.metrics:
        label = _NAMES.get(row.metric) or LABELS.get(row.metric, row.metric)
        figures = f"{row.first:>9.4f}{row.second:>9.4f}{row.difference:>+12.4f}"
        lines.append(f"{label:<16}{figures}   {f'[{row.low:+.4f}, {row.high:+.4f}]':<22} {row.verdict}")
    resampled = "users and training runs" if max(found.n_runs) > 1 else "users"
    lines.append(f"Intervals by resampling {resampled}.")
    return "\n".join(lines)
