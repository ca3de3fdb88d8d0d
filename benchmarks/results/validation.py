"""The page's part on what stage 2 did on validation, from the records of ``benchmarks.results.stage2``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.results import records
from latentrec.metrics import ClusterBootstrap, ndcg_at_k

PAIRS = (
    ("titles-latentr3", "latentr3-sft-catalogue"),
    ("titles-bigrec", "bigrec-catalogue"),
    ("latentr3", "latentr3-sft"),
    ("catalogue-latentr3", "catalogue-latentr3-sft"),
)
"""Stage 2 and the stage 1 that it went on from, decoded alike."""
STAGES = {
    "titles-latentr3": "arcsin objective",
    "titles-bigrec": "arcsin objective, N = 0",
    "latentr3": "on latents",
    "catalogue-latentr3": "on latents, catalogue's likelihood",
}


def record_path(dataset: str, after: str, seed: int) -> Path:
    """Where the validation ranks of a pair stand."""
    return records.RECORDS / dataset / "validation" / f"{after}-s{seed}.parquet"


def stage_2_on_validation(dataset: str) -> str:
    """Markdown: NDCG@10 before and after stage 2, on the samples that it chose by and on all others."""
    rows = []
    for after, _ in PAIRS:
        found = {seed: record_path(dataset, after, seed) for seed in records.SEEDS}
        tables = {seed: pq.read_table(path) for seed, path in found.items() if path.exists()}
        for chosen in (True, False):
            if tables:
                rows.append(_row(STAGES[after], list(tables.values()), chosen))
    if not rows:
        return ""
    head = (
        "### Stage 2 on validation\n\n"
        "Stage 2 ends with the weights that are best on a draw of samples, stage 1's among them; what it is "
        "worth shows on the others.\n\n"
        "| stage 2 | samples | NDCG@10 before | after | difference [95 %] | of each seed |\n"
        "|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def _row(stage: str, tables: list, chosen: bool) -> str:
    """One line: means over the seeds, a sample that a seed does not count left out there."""
    users = tables[0]["user_id"].to_numpy()
    counted = np.stack([one["chosen_by"].to_numpy() == chosen for one in tables])
    before, after = (
        np.where(counted, np.stack([ndcg_at_k(one[role].to_numpy().astype(int), 10) for one in tables]), 0.0)
        for role in ("before", "after")
    )
    seen = counted.sum(axis=0)
    used = seen > 0
    means = [values[:, used].sum(axis=0) / seen[used] for values in (before, after)]
    compared = ClusterBootstrap(users[used], n_resamples=2000, seed=42).compare(means[1], means[0])
    by_seed = [(a - b).sum() / c.sum() for a, b, c in zip(after, before, counted, strict=True)]
    return (
        f"| {stage} | "
        f"{'the draw that it chose by' if chosen else 'all others'} ({int(counted.sum(axis=1).mean()):,}) | "
        f"{means[0].mean():.5f} | {means[1].mean():.5f} | "
        f"{compared.difference:+.5f} [{compared.low:+.5f}, {compared.high:+.5f}] | "
        f"{', '.join(f'{value:+.5f}' for value in by_seed)} |"
    )
