"""Records of finished cells: where they stand, and what they say over all seeds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.results.plan import SEEDS
from latentrec.metrics import hit_rate_at_k, ndcg_at_k

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "results"
METRICS = {
    "HR@5": lambda ranks: hit_rate_at_k(ranks, k=5),
    "NDCG@5": lambda ranks: ndcg_at_k(ranks, k=5),
    "HR@10": lambda ranks: hit_rate_at_k(ranks, k=10),
    "NDCG@10": lambda ranks: ndcg_at_k(ranks, k=10),
}


@dataclass(frozen=True)
class Results:
    """All seeds of one cell on one dataset.

    Attributes:
        seeds: those that were run.
        records: one a seed.
        by_sample: metric → float64 (seeds, S), of each test sample.
    """

    seeds: list[int]
    records: list[dict[str, Any]]
    by_sample: dict[str, np.ndarray]

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Metric → float64 (S,), averaged over seeds."""
        return {name: columns.mean(axis=0) for name, columns in self.by_sample.items()}

    @property
    def by_seed(self) -> dict[str, list[float]]:
        """Metric → the mean of each seed."""
        return {name: columns.mean(axis=1).tolist() for name, columns in self.by_sample.items()}

    def mean_over(self, metric: str, seeds: list[int]) -> np.ndarray:
        """float64 (S,) of a metric, averaged over some of the seeds."""
        return self.by_sample[metric][[self.seeds.index(seed) for seed in seeds]].mean(axis=0)


def record_path(dataset: str, cell: str, seed: int) -> Path:
    """Where the record of a cell stands; the ranks are beside it as ``.parquet``."""
    return RECORDS / dataset / f"{cell}-s{seed}.json"


def load_results(dataset: str, cell: str) -> Results | None:
    """The records of a cell, all seeds that were run; ``None`` where none was."""
    seeds = [seed for seed in SEEDS if record_path(dataset, cell, seed).exists()]
    if not seeds:
        return None
    paths = [record_path(dataset, cell, seed) for seed in seeds]
    ranks = [
        pq.read_table(path.with_suffix(".parquet"))["title_rank"].to_numpy().astype(np.int64)
        for path in paths
    ]
    return Results(
        seeds=seeds,
        records=[json.loads(path.read_text(encoding="utf-8")) for path in paths],
        by_sample={name: np.stack([metric(one) for one in ranks]) for name, metric in METRICS.items()},
    )


def test_users(dataset: str) -> np.ndarray:
    """int32 (S,): the user of each test sample."""
    path = sorted((RECORDS / dataset).glob("*.parquet"))[0]
    return pq.read_table(path, columns=["user_id"])["user_id"].to_numpy()
