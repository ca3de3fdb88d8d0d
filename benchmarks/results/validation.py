"""The page's part on what stage 2 did on validation, from the records of ``benchmarks.results.stage2``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.controls.statistics import Resampler
from benchmarks.results import records
from latentrec.metrics import ndcg_at_k

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
    """One line: mean over the seeds of each one's mean over the samples that it counts; the interval is over
    seeds and users."""
    users = tables[0]["user_id"].to_numpy()
    counted = np.stack([one["chosen_by"].to_numpy() == chosen for one in tables])
    before, after = (
        np.stack([ndcg_at_k(one[role].to_numpy().astype(int), 10) for one in tables])
        for role in ("before", "after")
    )
    compared = Resampler(users).difference(after, before, counted)
    return (
        f"| {stage} | "
        f"{'the draw that it chose by' if chosen else 'all others'} ({int(counted.sum(axis=1).mean()):,}) | "
        f"{compared.second:.5f} | {compared.first:.5f} | "
        f"{compared.value:+.5f} [{compared.low:+.5f}, {compared.high:+.5f}] | "
        f"{', '.join(f'{value:+.5f}' for value in compared.by_seed)} |"
    )
