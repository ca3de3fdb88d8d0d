"""``docs/results.md`` from the records: tables with intervals, paired tests, ablations, curves, cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.controls.confirmation import confirmation_table
from benchmarks.controls.lares_tables import lares_table
from benchmarks.controls.page import published_table
from benchmarks.controls.statistics import Resampler
from benchmarks.results.curves import write_curves
from benchmarks.results.datasets import DATASETS, DatasetPlan
from benchmarks.results.goal import compare, goal_table
from benchmarks.results.plan import CELLS
from benchmarks.results.records import METRICS, RECORDS, ROOT, Results, load_results, test_users
from benchmarks.results.validation import stage_2_on_validation
from latentrec.metrics import ClusterBootstrap

PAIRS = (
    ("latentr3-sft", "bigrec", "latents, SFT"),
    ("latentr3", "bigrec", "latents, SFT + RL on latents"),
    ("latentr3", "latentr3-sft", "RL over SFT"),
    ("d3-latentr3-sft", "d3", "latents under D3, SFT"),
    ("d3-latentr3", "d3", "latents under D3, SFT + RL"),
    ("d3-latentr3", "d3-latentr3-sft", "RL over SFT under D3"),
    ("d3-latentr3", "sasrec", "D3 + LatentR³ over SASRec"),
    ("lares-spt", "sasrec", "depth recurrence, SPT"),
    ("lares-spt", "sasrec-deep", "recurrence over the same depth in layers"),
    ("lares", "sasrec", "depth recurrence, SPT + RPT"),
    ("lares-spt-long", "sasrec", "depth recurrence, SPT for as long as SPT + RPT"),
    ("lares", "lares-spt", "RPT over SPT"),
    ("lares", "lares-spt-long", "RPT over as much more SPT"),
)
ABLATION_PAIRS = (
    ("last-hidden", "latentr3-sft", "without LatentRATT"),
    ("ratt-only", "bigrec", "LatentRATT alone over its frozen backbone"),
    ("sft-continued", "latentr3-sft", "more of stage 1"),
    ("latentr3", "sft-continued", "stage 2 over as much more of stage 1"),
    ("ratt-exact", "latentr3-sft", "LatentRATT by the exact gradient"),
    ("latentr3", "ratt-exact", "stage 2 over the exact gradient"),
    ("ratt-held-out", "sft-early", "LatentRATT by the exact gradient, on samples held out of stage 1"),
    ("rl-held-out", "sft-early", "RL on samples held out of stage 1"),
    ("bigrec-continued", "bigrec", "more of N = 0"),
    ("latentr3", "bigrec-continued", "SFT + RL over N = 0 at equal compute"),
    ("latentr3-sft", "bigrec-wide", "SFT over N = 0 with equal parameters"),
    ("mean-latent", "latentr3-sft", "the mean latent instead of one's own"),
    ("shuffled-latent", "latentr3-sft", "another's latent instead of one's own"),
    ("rl-group", "latentr3-sft", "RL, group advantage"),
    ("rl-likelihood", "latentr3-sft", "RL, published estimator at our reward and noise"),
    ("lares-rpt-published", "sasrec", "depth recurrence, SPT + RPT by the published estimator"),
    ("lares-rpt-published", "lares-spt", "RPT, published estimator"),
    ("lares-rpt-published", "lares-spt-long", "RPT, published estimator, over more SPT"),
    ("lares-rpt-published", "lares", "RPT: published over smoothed"),
)
TITLE_PAIRS = (
    ("titles-latentr3", "latentr3-sft-catalogue", "arcsin over SFT"),
    ("titles-latentr3", "titles-continued", "arcsin over as many steps of likelihood"),
    ("titles-latentr3", "bigrec-catalogue", "latents and arcsin over BIGRec"),
    ("titles-bigrec", "bigrec-catalogue", "arcsin over SFT, N = 0"),
    ("titles-bigrec", "titles-bigrec-continued", "arcsin over as many steps of likelihood, N = 0"),
    ("titles-latentr3", "titles-bigrec", "latents, both with arcsin"),
    ("titles-latentr3", "sasrec", "LatentR³ over SASRec"),
    ("titles-latentr3", "latentr3-catalogue", "arcsin over RL on latents"),
    ("titles-latentr3", "titles-unscaled", "arcsin over the expected reward p"),
    ("titles-frozen", "latentr3-sft-catalogue", "arcsin beneath a frozen backbone over SFT"),
    ("titles-mean-latent", "titles-latentr3", "the mean latent instead of one's own"),
    ("titles-shuffled-latent", "titles-latentr3", "another's latent instead of one's own"),
    ("titles-catalogue-latentr3", "catalogue-latentr3-sft", "arcsin over SFT on the catalogue's likelihood"),
    ("d3-catalogue", "d3", "D3 over the catalogue's titles"),
    (
        "d3-titles-latentr3",
        "d3-catalogue",
        "latents and arcsin over D3, both over the catalogue's titles",
    ),
    ("d3-titles-latentr3", "d3-catalogue-latentr3-sft", "arcsin over SFT under it"),
    ("d3-titles-bigrec", "d3-catalogue", "arcsin under it, N = 0"),
    ("d3-titles-latentr3", "d3-titles-bigrec", "latents under it, both with arcsin"),
    ("d3-titles-latentr3", "sasrec", "D3 + LatentR³ over SASRec"),
)
LONG_PAIRS = (
    ("bigrec-long", "bigrec", "10 epochs over 3"),
    *((f"{first}-long", f"{second}-long", meaning) for first, second, meaning in PAIRS[:6]),
    ("d3-latentr3-long", "sasrec", "D3 + LatentR³ over SASRec"),
    ("mean-latent-long", "latentr3-sft-long", "the mean latent instead of one's own"),
    ("shuffled-latent-long", "latentr3-sft-long", "another's latent instead of one's own"),
)
CATALOGUE_PAIRS = (
    ("bigrec-catalogue", "bigrec", "catalogue decoding over BIGRec's"),
    ("bigrec-long-catalogue", "bigrec-long", "catalogue decoding over BIGRec's, 10 epochs"),
    *(
        (f"{first}{epochs}-catalogue", f"{second}{epochs}-catalogue", meaning)
        for epochs in ("", "-long")
        for first, second, meaning in PAIRS[:3]
    ),
    ("latentr3-sft-catalogue", "sasrec", "LatentR³ over SASRec"),
    ("latentr3-sft-long-catalogue", "sasrec", "LatentR³ over SASRec, 10 epochs"),
)
BY_CATALOGUE_PAIRS = (
    ("catalogue-bigrec", "bigrec-catalogue", "training on it, N = 0"),
    ("catalogue-latentr3-sft", "latentr3-sft-catalogue", "training on it, LatentR³"),
    *((f"catalogue-{first}", f"catalogue-{second}", meaning) for first, second, meaning in PAIRS[:3]),
    ("catalogue-latentr3-sft", "sasrec", "LatentR³ over SASRec"),
    *(
        (f"catalogue-{cell}", "catalogue-latentr3-sft", meaning)
        for cell, meaning in (
            ("rl-likelihood", "RL, published estimator at our reward and noise"),
            ("ratt-exact", "LatentRATT by the exact gradient"),
            ("mean-latent", "the mean latent instead of one's own"),
            ("shuffled-latent", "another's latent instead of one's own"),
        )
    ),
    ("catalogue-ratt-only", "catalogue-bigrec", "LatentRATT alone over its frozen backbone"),
)
TABLES = (
    ("main", "Comparison", "Paired differences", PAIRS),
    (
        "titles",
        "Stage 2 on the arcsin objective, decoded by the title's probability among the catalogue's",
        "Paired differences with the arcsin objective",
        TITLE_PAIRS,
    ),
    ("long", "Hosts trained for 10 epochs instead of 3", "Paired differences after 10 epochs", LONG_PAIRS),
    (
        "catalogue",
        "Decoding by the title's probability among the catalogue's",
        "Paired differences under catalogue decoding",
        CATALOGUE_PAIRS,
    ),
    (
        "by-catalogue",
        "Training on the title's probability among the catalogue's",
        "Paired differences under catalogue training",
        BY_CATALOGUE_PAIRS,
    ),
    ("ablation", "Ablations and controls", "Paired differences of ablations and controls", ABLATION_PAIRS),
)
BESIDE = {
    "titles": ("sasrec", "bigrec-catalogue", "latentr3-sft-catalogue"),
    "ablation": ("bigrec", "latentr3-sft", "latentr3"),
}
"""Cells of other tables that a table shows first, to be read against."""
STUDIES = {
    "RL as published": (
        "Stage 2 on latents by `grpo --profile paper`: one epoch at each of four learning rates, chosen on "
        "validation, last weights, ranked by the title's probability among the catalogue's; against its own "
        "stage 1. Intervals over seeds and users.",
        published_table,
    ),
    "Confirmation on users that no decision has seen": (
        "The protocol was frozen before: [confirmation-protocol.md](research/confirmation-protocol.md).",
        confirmation_table,
    ),
    "LARES as published": (
        "SPT and RPT by `--profile paper`; intervals over seeds and users.",
        lares_table,
    ),
}
"""Heading → words and table, of the study in ``benchmarks/controls``."""
PAGE = ROOT / "docs" / "results.md"


def write_page() -> Path:
    """Write the page from the records that exist and return its path."""
    every = {
        dataset: {cell: found for cell in CELLS if (found := load_results(dataset, cell))}
        for dataset in DATASETS
    }
    resamplers = {dataset: Resampler(test_users(dataset)) for dataset, results in every.items() if results}
    known = {dataset: results for dataset, results in every.items() if results}
    pretrained = {name: found for name, found in known.items() if DATASETS[name].profile == "pretrained"}
    scratch = {name: found for name, found in known.items() if name not in pretrained}
    parts = [
        _HEAD,
        goal_table(scratch, resamplers.__getitem__),
        goal_table(pretrained, resamplers.__getitem__, "What the gain is due to, with SmolLM2-135M"),
    ]
    parts += [f"## {title}\n\n{words}\n\n{table()}" for title, (words, table) in STUDIES.items()]
    for dataset, plan in DATASETS.items():
        results = every[dataset]
        parts.append(f"## {plan.title}\n")
        if not results:
            parts.append(f"*not run*: {plan.not_run}.\n")
            continue
        users = test_users(dataset)
        bootstrap = ClusterBootstrap(users, n_resamples=2000, seed=42)
        first = next(iter(results.values())).records[0]
        parts.append(
            f"{len(users):,} test samples of {len(np.unique(users)):,} users; dataset fingerprint "
            f"`{first['dataset_fingerprint'][:16]}`. {plan.budget}\n"
        )
        for table, title, pairs_title, pairs in TABLES:
            parts.append(_table(plan, results, bootstrap, table, title))
            parts.append(_paired(pairs_title, pairs, results, resamplers[dataset]))
        parts.append(stage_2_on_validation(dataset))
        parts.append(write_curves(dataset, results))
        parts.append(_costs(results))
    parts.append(_machines())
    PAGE.write_text("\n".join(part for part in parts if part), encoding="utf-8")
    return PAGE


def _table(
    plan: DatasetPlan, results: dict[str, Results], bootstrap: ClusterBootstrap, table: str, title: str
) -> str:
    cells = [*BESIDE.get(table, ()), *(cell for cell in CELLS if CELLS[cell].table == table)]
    lines = [
        f"### {title}\n",
        f"| system | {' | '.join(METRICS)} | NDCG@10 of each seed |",
        "|---|" + "---|" * (len(METRICS) + 1),
    ]
    for cell in cells:
        if cell not in results:
            lines.append(f"| {CELLS[cell].label} | *not run* |" + " |" * len(METRICS))
            continue
        found = results[cell]
        intervals = bootstrap.intervals(np.column_stack(list(found.values.values())))
        shown = [f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]" for one in intervals]
        seeds = ", ".join(f"{value:.4f}" for value in found.by_seed["NDCG@10"])
        lines.append(f"| {CELLS[cell].label} | {' | '.join(shown)} | {seeds} |")
    if any(cell not in results for cell in cells):
        lines.append(f"\n*not run*: {plan.not_run}.")
    return "\n".join(lines) + "\n"


def _paired(
    title: str, pairs: tuple[tuple[str, str, str], ...], results: dict[str, Results], resampler: Resampler
) -> str:
    rows = []
    for first, second, meaning in pairs:
        if first not in results or second not in results:
            continue
        for metric in ("HR@5", "NDCG@10"):
            found = compare(results[first], results[second], metric, resampler)
            if found is not None:
                rows.append(
                    f"| {meaning}: {first} − {second} | {metric} | {found.value:+.4f} [{found.low:+.4f}, "
                    f"{found.high:+.4f}] | {found.relative:+.1%} | {len(found.by_seed)} |"
                )
    if not rows:
        return ""
    head = "| pair | metric | difference [95 %] | relative | seeds |\n|---|---|---|---|---|"
    return f"### {title}\n\n" + head + "\n" + "\n".join(rows) + "\n"


def _costs(results: dict[str, Results]) -> str:
    lines = [
        "### Cost\n",
        "Processor seconds on one core, mean over seeds; scoring includes validation and D3's α.\n",
        "| system | training | scoring | α of D3 |",
        "|---|---|---|---|",
    ]
    for cell, found in results.items():
        timed = [_cpu(record, "train") for record in found.records if _cpu(record, "train")]
        train = f"{np.mean(timed):,.0f}" if timed else "–"
        evaluated = np.mean([_cpu(record, "judge") for record in found.records])
        alphas = ", ".join(str(record["alpha"]) for record in found.records if record["alpha"] is not None)
        lines.append(f"| {CELLS[cell].label} | {train} | {evaluated:,.0f} | {alphas or '–'} |")
    return "\n".join(lines) + "\n"


def _cpu(record: dict[str, Any], stage: str) -> float:
    return record.get("processor_seconds", record["seconds"])[stage]


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
  user (2,000 resamples, of the seeds' mean: the spread between seeds is in the last column). Pairs are
  compared on the seeds that both have; intervals of differences resample seeds and users both. With one seed
  an interval is over users only.
- Title level: all models are ranked on the same groups of equal titles, 10 beams, full catalogue, own history
  not excluded (the papers' protocol).
- Text models start from scratch (a small Qwen2 configuration and a tokenizer of the catalogue's titles), but
  for the tables whose heading names SmolLM2-135M. Figures of the papers, which start from Qwen2.5-1.5B on
  other splits, are not comparable and stand in no table.
- Settings, checkpoints and D3's α are chosen on validation. `docs/results/test-split.log` has one line for
  each time that a test split was scored. How stage 2 was chosen: [estimator.md](estimator.md).
- Titles are ranked by BIGRec's score (mean log-probability a token) or D3's, and trained for 3 epochs on the
  published likelihood, where a table does not say otherwise. What these choices do:
  [latentr3.md](latentr3.md#how-a-title-is-scored-matters-more).
"""
