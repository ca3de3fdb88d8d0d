"""``docs/results.md`` from the records: tables with intervals, paired tests, ablations, cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.results.plan import CELLS, DATASETS, SEEDS
from benchmarks.results.run import RECORDS, ROOT, record_path
from latentrec.metrics import ClusterBootstrap, hit_rate_at_k, holm, ndcg_at_k

METRICS = {
    "HR@5": lambda ranks: hit_rate_at_k(ranks, k=5),
    "NDCG@5": lambda ranks: ndcg_at_k(ranks, k=5),
    "HR@10": lambda ranks: hit_rate_at_k(ranks, k=10),
    "NDCG@10": lambda ranks: ndcg_at_k(ranks, k=10),
}
PAIRS = (
    ("latentr3-sft", "bigrec", "latent reasoning, SFT"),
    ("latentr3", "bigrec", "latent reasoning, SFT + RL"),
    ("latentr3", "latentr3-sft", "RL over SFT"),
    ("d3-latentr3", "d3", "latent reasoning under D3"),
    ("d3-latentr3", "sasrec", "D3 + LatentR³ over SASRec"),
    ("lares-spt", "sasrec", "depth recurrence, SPT"),
    ("lares-spt", "sasrec-deep", "recurrence over the same depth in layers"),
    ("lares", "lares-spt", "RPT over SPT"),
    ("lares", "lares-spt-long", "RPT over as much more SPT"),
)
PAGE = ROOT / "docs" / "results.md"


@dataclass(frozen=True)
class Results:
    """All seeds of one cell on one dataset.

    Attributes:
        records: one a seed.
        values: metric → float64 (S,), of each test sample, averaged over seeds.
        by_seed: metric → the mean of each seed.
    """

    records: list[dict[str, Any]]
    values: dict[str, np.ndarray]
    by_seed: dict[str, list[float]]


def write_page() -> Path:
    """Write the page from the records that exist and return its path."""
    parts = [_HEAD]
    for dataset, plan in DATASETS.items():
        results = {cell: found for cell in CELLS if (found := load(dataset, cell))}
        parts.append(f"## {plan.title}\n")
        if not results:
            parts.append("*not run*\n")
            continue
        users = pq.read_table(next(_rank_files(dataset)), columns=["user_id"])["user_id"].to_numpy()
        bootstrap = ClusterBootstrap(users, n_resamples=2000, seed=42)
        first = next(iter(results.values())).records[0]
        parts.append(
            f"{len(users):,} test samples of {len(np.unique(users)):,} users; dataset fingerprint "
            f"`{first['dataset_fingerprint'][:16]}`.\n"
        )
        parts.append(_table(results, bootstrap, ablation=False))
        parts.append(_paired(results, bootstrap))
        parts.append(_table(results, bootstrap, ablation=True))
        parts.append(_costs(results))
    parts.append(_machines())
    PAGE.write_text("\n".join(part for part in parts if part), encoding="utf-8")
    return PAGE


def load(dataset: str, cell: str) -> Results | None:
    """The records of a cell, all seeds that were run; ``None`` where none was."""
    found = [seed for seed in SEEDS if record_path(dataset, cell, seed).exists()]
    if not found:
        return None
    records = [json.loads(record_path(dataset, cell, seed).read_text(encoding="utf-8")) for seed in found]
    ranks = [
        pq.read_table(record_path(dataset, cell, seed).with_suffix(".parquet"))["title_rank"].to_numpy()
        for seed in found
    ]
    by_metric = {name: [metric(one.astype(np.int64)) for one in ranks] for name, metric in METRICS.items()}
    return Results(
        records=records,
        values={name: np.mean(columns, axis=0) for name, columns in by_metric.items()},
        by_seed={name: [float(column.mean()) for column in columns] for name, columns in by_metric.items()},
    )


def _rank_files(dataset: str) -> Iterator[Path]:
    return iter(sorted((RECORDS / dataset).glob("*.parquet")))


def _table(results: dict[str, Results], bootstrap: ClusterBootstrap, *, ablation: bool) -> str:
    cells = [cell for cell in CELLS if CELLS[cell].ablation == ablation]
    if ablation:
        cells = ["bigrec", "latentr3-sft", "latentr3", *cells]
    lines = [
        "### Ablations and controls\n" if ablation else "### Comparison\n",
        f"| system | {' | '.join(METRICS)} | NDCG@10 of each seed |",
        "|---|" + "---|" * (len(METRICS) + 1),
    ]
    for cell in cells:
        if cell not in results:
            lines.append(f"| {CELLS[cell].label} |" + " *not run* |" * (len(METRICS) + 1))
            continue
        found = results[cell]
        intervals = bootstrap.intervals(np.column_stack(list(found.values.values())))
        shown = [f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]" for one in intervals]
        seeds = ", ".join(f"{value:.4f}" for value in found.by_seed["NDCG@10"])
        lines.append(f"| {CELLS[cell].label} | {' | '.join(shown)} | {seeds} |")
    return "\n".join(lines) + "\n"


def _paired(results: dict[str, Results], bootstrap: ClusterBootstrap) -> str:
    rows, p_values = [], []
    for first, second, meaning in PAIRS:
        if first not in results or second not in results:
            continue
        seeds = min(len(results[first].records), len(results[second].records))
        for metric in ("HR@5", "NDCG@10"):
            one, other = results[first].values[metric], results[second].values[metric]
            found = bootstrap.compare(one, other)
            gain = found.difference / max(float(other.mean()), 1e-12)
            p_values.append(found.p_value)
            rows.append(
                f"| {meaning}: {first} − {second} | {metric} | {found.difference:+.4f} "
                f"[{found.low:+.4f}, {found.high:+.4f}] | {gain:+.1%} | {{p}} | {seeds} |"
            )
    if not rows:
        return ""
    adjusted = holm(np.array(p_values))
    shown = [row.replace("{p}", f"{p:.3f}") for row, p in zip(rows, adjusted, strict=True)]
    head = "| pair | metric | difference [95 %] | relative | p (Holm) | seeds |\n|---|---|---|---|---|---|"
    return "### Paired differences\n\n" + head + "\n" + "\n".join(shown) + "\n"


def _costs(results: dict[str, Results]) -> str:
    lines = [
        "### Cost\n",
        "| system | training, s | scoring the test split, s | α of D3 |",
        "|---|---|---|---|",
    ]
    for cell, found in results.items():
        train = np.mean([record["seconds"]["train"] for record in found.records])
        judged = np.mean([record["seconds"]["judge"] for record in found.records])
        alphas = ", ".join(str(record["alpha"]) for record in found.records if record["alpha"] is not None)
        lines.append(f"| {CELLS[cell].label} | {train:,.0f} | {judged:,.0f} | {alphas or '–'} |")
    return "\n".join(lines) + "\n"


def _machines() -> str:
    seen = set()
    for path in sorted(RECORDS.glob("*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        seen.add(f"- {record['machine']}; {versions}")
    return "## Machines and versions\n\n" + "\n".join(sorted(seen)) + "\n"


_HEAD = """# Results

Written by `make results` from the records under `docs/results/`; do not edit. One record a cell: its command,
configuration, fingerprints, validation figures, seconds, machine; the rank of every test target beside it.

- Every value is the mean over the seeds that were run, in brackets the 95 % bootstrap interval clustered by
  user (2,000 resamples, of the seeds' mean: the spread between seeds is in the last column).
- Title level: all models are ranked on the same groups of equal titles, 10 beams, full catalogue, own history
  not excluded (the papers' protocol).
- Text models start from scratch (a small Qwen2 configuration and a tokenizer of the catalogue's titles): no
  pretrained model can be had here. Figures of the papers, which start from Qwen2.5-1.5B on other splits, are
  not comparable and stand in no table.
- Epochs, checkpoints and D3's α are chosen on validation. `docs/results/test-split.log` has one line for each
  time that a test split was scored.
"""
