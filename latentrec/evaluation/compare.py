"""Two evaluations side by side: the same metric of two models on the samples that both have.

Each side may be several evaluations, one a training run (seed) of the same recipe: users and runs are then
both resampled, so that a lucky seed is no evidence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from latentrec.core import UserError
from latentrec.evaluation.ranking.result import file_name
from latentrec.evaluation.ranking.scoring import METRICS
from latentrec.metrics import ClusterBootstrap
from latentrec.storage import read_manifest

RANKING_METRICS = ("ndcg_at_10", "hr_at_10", "ndcg_at_5", "hr_at_5", "item_ndcg_at_10")
RATING_METRICS = ("mae",)


@dataclass(frozen=True)
class EvaluatedModel:
    """One model of one evaluation directory; ``model`` ``None``: its challenger."""

    directory: Path
    model: str | None = None


@dataclass(frozen=True)
class MetricComparison:
    """One metric: means of both sides, second minus first, and its 95 % interval."""

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Of the second: ``better``, ``worse`` or ``cannot tell``; an error is better when it is smaller."""
        sign = -1 if self.metric in RATING_METRICS else 1
        if sign * self.low > 0 and sign * self.high > 0:
            return "better"
        return "worse" if sign * self.low < 0 and sign * self.high < 0 else "cannot tell"


@dataclass(frozen=True)
class RunComparison:
    """What was compared, and every metric that both sides have."""

    first: str
    second: str
    n_samples: int
    n_users: int
    n_runs: tuple[int, int]
    same_dataset: bool
    metrics: list[MetricComparison]


def compare_runs(
    first: Sequence[EvaluatedModel],
    second: Sequence[EvaluatedModel],
    *,
    n_resamples: int = 2000,
    seed: int = 42,
) -> RunComparison:
    """Compare two recipes on the samples that all their evaluations have (by user, target and order).

    Args:
        first, second: the evaluations of each side, one a training run.
        n_resamples, seed: of the bootstrap.

    Raises:
        UserError: not evaluation directories, a model that is not in one, of different kinds, or without
            common samples.
    """
    sides = [[_read(entry) for entry in side] for side in (first, second)]
    tables = [table for side in sides for table in side]
    common = sorted(set.intersection(*(set(table.places) for table in tables)))
    if not common:
        raise UserError(
            "the evaluations have no test samples in common; were they made of the same shop's data?",
            code="evaluation.not_comparable",
        )
    kinds = [table.metrics for table in tables]
    shared = [name for name in kinds[0] if all(name in kind for kind in kinds)]
    if not shared:
        raise UserError(
            "one evaluation ranks items and another predicts ratings; they cannot be compared",
            code="evaluation.not_comparable",
        )
    users = np.unique([key[0] for key in common], return_inverse=True)[1]
    paired = ClusterBootstrap(users, n_resamples=n_resamples, seed=seed)
    rows = []
    for name in shared:
        values = [np.stack([table.values(name, common) for table in side]) for side in sides]
        draws = paired.resampled_differences(values[1], values[0])
        low, high = np.percentile(draws, [2.5, 97.5])
        means = [float(side.mean()) for side in values]
        rows.append(MetricComparison(name, means[0], means[1], means[1] - means[0], float(low), float(high)))
    return RunComparison(
        first=_label(sides[0]),
        second=_label(sides[1]),
        n_samples=len(common),
        n_users=paired.n_clusters,
        n_runs=(len(first), len(second)),
        same_dataset=len({table.dataset for table in tables}) == 1,
        metrics=rows,
    )


@dataclass(frozen=True)
class _Table:
    """Per-sample values of one model: ``places`` maps (user, target, how often before) to a row."""

    name: str
    dataset: str
    places: dict[tuple[str, str, int], int]
    metrics: dict[str, np.ndarray]

    def values(self, metric: str, keys: Sequence[tuple[str, str, int]]) -> np.ndarray:
        return self.metrics[metric][[self.places[key] for key in keys]]


def _read(entry: EvaluatedModel) -> _Table:
    manifest = read_manifest(entry.directory, "evaluation")
    models = json.loads((entry.directory / "comparison.json").read_text(encoding="utf-8"))["models"]
    name = entry.model or str(manifest.extra.get("challenger"))
    if name not in models:
        raise UserError(
            f"{entry.directory} has no model {name!r}; it has {', '.join(models)}",
            code="evaluation.unknown_model",
        )
    table = pq.read_table(entry.directory / f"predictions_{file_name(name)}.parquet")
    needed = {"user_key", "target_key"}
    if not needed <= set(table.column_names):
        raise UserError(
            f"{entry.directory}: its predictions have no item keys; evaluate again",
            code="evaluation.no_item_keys",
        )
    places: dict[tuple[str, str, int], int] = {}
    seen: dict[tuple[str, str], int] = {}
    pairs = zip(table["user_key"].to_pylist(), table["target_key"].to_pylist(), strict=True)
    for row, pair in enumerate(pairs):
        seen[pair] = seen.get(pair, -1) + 1
        places[*pair, seen[pair]] = row
    return _Table(name, str(manifest.extra.get("dataset_fingerprint")), places, _metrics(table))


def _metrics(table) -> dict[str, np.ndarray]:
    if "absolute_error" in table.column_names:
        return {"mae": table["absolute_error"].to_numpy().astype(np.float64)}
    ranks = {"": table["title_rank"].to_numpy(), "item_": table["item_rank"].to_numpy()}
    found = {}
    for name in RANKING_METRICS:
        prefix = "item_" if name.startswith("item_") else ""
        found[name] = METRICS[name.removeprefix("item_")](ranks[prefix])
    return found


def _label(side: Sequence[_Table]) -> str:
    names = list(dict.fromkeys(table.name for table in side))
    return " + ".join(names) + (f" ({len(side)} runs)" if len(side) > 1 else "")
