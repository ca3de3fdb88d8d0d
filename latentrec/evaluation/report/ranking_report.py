"""The evaluation report: one self-contained HTML page for a product owner, and the same as Markdown."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from latentrec.core import charts
from latentrec.core.html_page import ForeignText, render_markdown, render_page
from latentrec.evaluation.ranking.result import Evaluation
from latentrec.evaluation.ranking.roles import ALONE
from latentrec.evaluation.ranking.tables import against
from latentrec.evaluation.report.gate_facts import gate_facts, gate_sentence
from latentrec.evaluation.report.ranking_figures import (
    BEYOND_COLUMNS,
    ITEM_COLUMNS,
    PHASE_COLORS,
    SIGNIFICANT,
    TITLE_COLUMNS,
    comparison_blocks,
    cost_rows,
    latency_svg,
    metric_figures,
    metric_table,
    slice_figures,
    slice_rows,
    taste_rows,
)

LIST_SHOWN = 5


def write_reports(evaluation: Evaluation, directory: Path) -> None:
    """Write ``report.html`` and ``report.md``."""
    context = _context(evaluation)
    page = render_page("latentrec.evaluation", "report.html", context)
    (directory / "report.html").write_text(page, encoding="utf-8")
    text = render_markdown("latentrec.evaluation", "report.md", context)
    text = re.sub(r"([^\n])\n(#{1,3} )", r"\1\n\n\2", text)
    (directory / "report.md").write_text(re.sub(r"\n{3,}", "\n\n", text), encoding="utf-8")


def _context(evaluation: Evaluation) -> dict[str, Any]:
    names = [model.name for model in evaluation.models]
    colors = charts.color_of(names)
    return {
        "gate": evaluation.gate,
        "verdict": _verdict(evaluation),
        "setting": _setting(evaluation),
        "tables": [
            metric_table(evaluation, "results", "Titles", TITLE_COLUMNS),
            metric_table(evaluation, "items", "Items, and what the lists hold", ITEM_COLUMNS),
            metric_table(evaluation, "beyond", "Beyond accuracy", BEYOND_COLUMNS),
        ],
        "tastes": taste_rows(evaluation, names),
        "warnings": evaluation.warnings,
        "colors": colors,
        "figures": metric_figures(evaluation, colors),
        "comparison_blocks": comparison_blocks(evaluation),
        "n_comparisons": len(evaluation.comparisons),
        "slice_figures": slice_figures(evaluation, colors),
        "slice_rows": slice_rows(evaluation, names),
        "costs": cost_rows(evaluation),
        "latency_svg": latency_svg(evaluation),
        "phases": PHASE_COLORS,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "batch_size": evaluation.config.batch_size,
        "users": _users(evaluation),
        "notes": _notes(evaluation),
    }


def _verdict(evaluation: Evaluation) -> dict[str, Any]:
    gate = evaluation.gate
    if gate.promote:
        headline = f"Promote {gate.challenger_name}"
    elif not gate.comparable:
        headline = f"Do not promote {gate.challenger_name}: not comparable"
    else:
        headline = f"Do not promote {gate.challenger_name}"
    return {
        "headline": headline,
        "sentence": gate_sentence(gate),
        "facts": gate_facts(gate),
        "caution": _caution(evaluation),
    }


def _caution(evaluation: Evaluation) -> str:
    """What the gate does not ask but the reader should know: models that beat the challenger for certain."""
    challenger = evaluation.gate.challenger_name
    decided = {row.name for row in evaluation.gate.baselines}
    better = [
        f"{row['model']} ({row['difference']:+.4f})"
        for row in against(evaluation.comparisons, challenger)
        if row["metric"] == "ndcg_at_10" and row["low"] > 0 and row["p_holm"] < SIGNIFICANT
        if evaluation.gate.floor != "strongest" or row["model"] not in decided
    ]
    if not better:
        return ""
    return f"In the same evaluation {', '.join(better)} stood above {challenger} in NDCG@10, beyond chance."


def _setting(evaluation: Evaluation) -> str:
    samples, config = evaluation.samples, evaluation.config
    first, last = (_date(int(stamp)) for stamp in (samples.timestamps.min(), samples.timestamps.max()))
    n_users = len(np.unique(samples.user_ids))
    return (
        f"{len(samples):,} {config.split} samples of {n_users:,} users, purchases from {first} to {last}; "
        f"{evaluation.catalogue.n_items:,} items with {evaluation.catalogue.n_titles:,} titles to choose "
        f"from. Dataset {evaluation.dataset.fingerprint[:12]}."
    )


def _date(stamp: int) -> str:
    return datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d")


def _users(evaluation: Evaluation) -> list[dict[str, Any]]:
    samples, catalogue = evaluation.samples, evaluation.catalogue
    rng = np.random.default_rng(evaluation.config.seed)
    _, first = np.unique(samples.user_ids, return_index=True)
    chosen = rng.choice(first, size=min(evaluation.config.example_users, len(first)), replace=False)
    shown = []
    for index in chosen:
        truth = int(catalogue.title_ids[samples.targets[index]])
        seen = {int(catalogue.title_ids[item]) for item in samples.history(index)}
        lists = []
        for model in evaluation.models:
            entries = []
            for place, title_id in enumerate(model.ranked_titles[index].tolist()):
                kind = "hit" if title_id == truth else "seen" if title_id in seen else ""
                if title_id >= 0 and (place < LIST_SHOWN or kind == "hit"):
                    title = ForeignText(catalogue.unique_titles[title_id])
                    entries.append({"title": title, "kind": kind, "place": place + 1})
            lists.append({"model": model.name, "entries": entries})
        shown.append(
            {
                "key": int(samples.user_ids[index]),
                "history": [ForeignText(catalogue.titles[item]) for item in samples.history(index)],
                "truth": ForeignText(catalogue.titles[samples.targets[index]]),
                "lists": lists,
            }
        )
    return shown


def _notes(evaluation: Evaluation) -> list[str]:
    config, gate, alphas = evaluation.config, evaluation.gate, evaluation.alphas
    titled = {name for name, info in evaluation.infos.items() if info.system == "latentr3"}
    notes = [
        "Every model ranks the whole catalogue for the same samples, and all are evaluated on the same title "
        "groups; a title stands for its items in order of training popularity.",
        "Users' own items "
        + (
            "are left out of the lists, as when the model is served."
            if config.exclude_history
            else "may be recommended again, as when the model is served."
        ),
        *(
            f"{name} is decoded by {options}"
            + (f" with the assistant {evaluation.assistant}" if options.is_mixture and name in alphas else "")
            + "."
            for name, options in evaluation.served_as.items()
            if name.removesuffix(ALONE) in titled
        ),
        *(
            f"α of {name} is {choice.alpha:g}, chosen on {choice.n_samples:,} validation samples by "
            f"{choice.metric}: "
            + ", ".join(f"{alpha} {value:.4f}" for alpha, value in choice.values.items())
            + "."
            + choice.note
            for name, choice in alphas.items()
            if choice.n_samples
        ),
        f"Intervals: {config.n_resamples:,} bootstrap resamples of users, percentile method, seed "
        f"{config.seed}; p-values: permutation test that flips the sign of a user's differences.",
        "Items cut in thirds of training purchases for popular, mid and long tail.",
        f"Gate: {gate.metric_label} over samples that no compared model can have trained on; the one-sided "
        f"95 % lower end of challenger − champion above {gate.margin:g}, and "
        + (
            "no baseline better beyond its paired interval."
            if gate.floor == "strongest"
            else "the challenger above popularity."
        ),
        "Novelty: mean −log2 of an item's share of training purchases. Diversity: share of a list's pairs of "
        "different category (else brand). Popularity lift: how much more popular the list is than the user's "
        "history. Miscalibration: Jensen-Shannon divergence of the list's mix from the history's, by "
        "category, and by popularity. Gini: of how often items are shown.",
    ]
    if config.sampled_negatives:
        notes.insert(
            0,
            f"SAMPLED EVALUATION: each target is ranked among {config.sampled_negatives} sampled items, not "
            "among the whole catalogue. These figures are comparable only with others of the same kind.",
        )
    for name, info in evaluation.infos.items():
        notes += [f"{name}: {note}" for note in info.notes]
    return notes
