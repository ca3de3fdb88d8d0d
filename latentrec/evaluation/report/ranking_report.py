"""The evaluation report: one self-contained HTML page for a product owner, and the same as Markdown."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from latentrec.core import charts
from latentrec.core.html_page import page_loader, shown
from latentrec.core.text import markdown_text
from latentrec.evaluation.ranking.result import Evaluation
from latentrec.evaluation.ranking.roles import ALONE
from latentrec.evaluation.ranking.scoring import K_MAX
from latentrec.evaluation.ranking.tables import against, lift_by_taste
from latentrec.evaluation.report.gate_facts import gate_facts, gate_sentence
from latentrec.metrics import Interval, hit_rate_at_k

PHASE_COLORS = {"prefill": "#56B4E9", "latent": "#D55E00", "decode": "#0072B2", "request": "#999999"}
TITLE_COLUMNS = (
    ("ndcg_at_10", "NDCG@10"),
    ("hr_at_10", "HR@10"),
    ("ndcg_at_5", "NDCG@5"),
    ("hr_at_5", "HR@5"),
    ("hr_at_1", "HR@1"),
    ("mrr_at_10", "MRR@10"),
)
ITEM_COLUMNS = (
    ("item_ndcg_at_10", "item NDCG@10"),
    ("item_hr_at_10", "item HR@10"),
    ("coverage_at_10", "coverage@10"),
    ("repeat_share_at_10", "repeats@10"),
    ("unscorable_share", "cannot score"),
)
BEYOND_COLUMNS = (
    ("novelty_at_10", "novelty@10, bits"),
    ("diversity_at_10", "diversity@10"),
    ("popularity_lift_at_10", "popularity lift@10"),
    ("long_tail_share_at_10", "long tail@10"),
    ("miscalibration_at_10", "miscalibration@10"),
    ("popularity_miscalibration_at_10", "of popularity"),
    ("gini_at_10", "Gini@10"),
)
COLUMNS = (*TITLE_COLUMNS, *ITEM_COLUMNS, *BEYOND_COLUMNS)
WITH_BEST = frozenset(metric for metric, _ in (*TITLE_COLUMNS, *ITEM_COLUMNS[:2]))
LIST_SHOWN = 5
SIGNIFICANT = 0.05
PHASES = ("prefill", "latent", "decode")


def write_reports(evaluation: Evaluation, directory: Path) -> None:
    """Write ``report.html`` and ``report.md``."""
    context = _context(evaluation)
    html = Environment(
        loader=page_loader("latentrec.evaluation"),
        autoescape=True,
        trim_blocks=True,
        undefined=StrictUndefined,
        finalize=shown,
    )
    page = html.get_template("report.html").render(context)
    (directory / "report.html").write_text(page, encoding="utf-8")
    plain = Environment(
        loader=page_loader("latentrec.evaluation"),
        autoescape=False,
        trim_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: markdown_text(value) if isinstance(value, _Title) else shown(value),
    )
    text = plain.get_template("report.md").render(context)
    text = re.sub(r"([^\n])\n(#{1,3} )", r"\1\n\n\2", text)
    (directory / "report.md").write_text(re.sub(r"\n{3,}", "\n\n", text), encoding="utf-8")


class _Title(str):
    """Text that came from the catalogue: nothing in it may act as markup."""

    __slots__ = ()


def _context(evaluation: Evaluation) -> dict[str, Any]:
    names = [model.name for model in evaluation.models]
    colors = charts.color_of(names)
    return {
        "gate": evaluation.gate,
        "verdict": _verdict(evaluation),
        "setting": _setting(evaluation),
        "tables": [
            _table(evaluation, "results", "Titles", TITLE_COLUMNS),
            _table(evaluation, "items", "Items, and what the lists hold", ITEM_COLUMNS),
            _table(evaluation, "beyond", "Beyond accuracy", BEYOND_COLUMNS),
        ],
        "tastes": _tastes(evaluation, names),
        "warnings": evaluation.warnings,
        "colors": colors,
        "figures": _figures(evaluation, colors),
        "comparison_blocks": _comparison_blocks(evaluation),
        "n_comparisons": len(evaluation.comparisons),
        "slice_figures": _slice_figures(evaluation, colors),
        "slice_rows": _slice_rows(evaluation, names),
        "costs": _cost_rows(evaluation),
        "latency_svg": _latency_svg(evaluation),
        "phases": PHASE_COLORS,
        "chain_of_thought": evaluation.config.chain_of_thought_tokens,
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


def _table(
    evaluation: Evaluation, anchor: str, title: str, columns: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """One row a model, narrow enough for a screen of 1280 pixels."""
    columns = tuple(
        column for column in columns if any(column[0] in row for row in evaluation.table.values())
    )
    best = {
        metric: max(row[metric].value for row in evaluation.table.values())
        for metric, _ in columns
        if metric in WITH_BEST
    }
    roles = {
        **{row.name: "baseline" for row in evaluation.gate.baselines},
        evaluation.champion or "": "champion",
        evaluation.gate.challenger_name: "challenger",
    }
    rows = []
    for name, metrics in evaluation.table.items():
        cells = [
            {**_cell(metrics[metric]), "best": metric in best and metrics[metric].value == best[metric]}
            if metric in metrics
            else {"value": "–", "interval": "", "best": False}
            for metric, _ in columns
        ]
        rows.append({"name": name, "role": roles.get(name, ""), "cells": cells})
    return {"anchor": anchor, "title": title, "columns": [label for _, label in columns], "rows": rows}


def _cell(interval: Interval) -> dict[str, str]:
    if interval.low == interval.high:
        return {"value": f"{interval.value:.3f}", "interval": ""}
    return {"value": f"{interval.value:.4f}", "interval": f"[{interval.low:.4f}, {interval.high:.4f}]"}


def _figures(evaluation: Evaluation, colors: Mapping[str, str]) -> list[dict[str, Any]]:
    figures = []
    for metric, label in (
        ("ndcg_at_10", "NDCG@10, titles"),
        ("hr_at_10", "HR@10, titles"),
        ("item_ndcg_at_10", "NDCG@10, items"),
    ):
        rows = {name: metrics[metric] for name, metrics in evaluation.table.items()}
        svg = charts.interval_chart(label, rows, colors)
        figures.append({"title": label, "svg": Markup(svg), "note": ""})
    curves = {
        model.name: [float(hit_rate_at_k(model.title_ranks, k).mean()) for k in range(1, K_MAX + 1)]
        for model in evaluation.models
    }
    svg = charts.curve_chart("HR@k against k", curves, colors)
    figures.append({"title": "HR@k, titles", "svg": Markup(svg), "note": ""})
    return figures


def _comparison_blocks(evaluation: Evaluation) -> list[dict[str, Any]]:
    blocks = []
    references = [("baseline", evaluation.baseline), ("champion", evaluation.champion)]
    if evaluation.gate.challenger_name not in (evaluation.baseline, evaluation.champion):
        references.append(("challenger", evaluation.gate.challenger_name))
    for role, name in references:
        rows = against(evaluation.comparisons, name) if name else []
        if rows:
            title = f"Every model minus the {role} {name}"
            blocks.append({"title": title, "rows": [_comparison_row(row) for row in rows]})
    return blocks


def _comparison_row(row: dict[str, Any]) -> dict[str, str]:
    real = (row["low"] > 0 or row["high"] < 0) and row["p_holm"] < SIGNIFICANT
    return {
        "model": row["model"],
        "metric": dict(COLUMNS)[row["metric"]],
        "difference": f"{row['difference']:+.4f}",
        "interval": f"[{row['low']:+.4f}, {row['high']:+.4f}]",
        "p": f"{row['p_value']:.4f}",
        "p_holm": f"{row['p_holm']:.4f}",
        "real": ("better" if row["difference"] > 0 else "worse") if real else "cannot tell",
    }


def _slice_figures(evaluation: Evaluation, colors: Mapping[str, str]) -> list[dict[str, Any]]:
    dimensions: dict[str, dict[str, dict[str, Interval]]] = {}
    sizes: dict[str, int] = {}
    for row in evaluation.slices:
        interval = Interval(row["value"], row["low"], row["high"])
        dimensions.setdefault(row["dimension"], {}).setdefault(row["group"], {})[row["model"]] = interval
        sizes[row["group"]] = row["n"]
    return [
        {
            "title": f"By {name}",
            "svg": Markup(charts.group_chart(f"NDCG@10 by {name}", groups, sizes, colors)),
        }
        for name, groups in dimensions.items()
    ]


def _slice_rows(evaluation: Evaluation, names: list[str]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in evaluation.slices:
        key = (entry["dimension"], entry["group"])
        row = rows.setdefault(key, {"dimension": key[0], "group": key[1], "n": entry["n"], "by_model": {}})
        row["by_model"][entry["model"]] = f"{entry['value']:.4f} [{entry['low']:.4f}, {entry['high']:.4f}]"
    return [row | {"cells": [row["by_model"].get(name, "") for name in names]} for row in rows.values()]


def _latency_svg(evaluation: Evaluation) -> Markup:
    bars = {
        name: cost.phases_ms or {"request": cost.latency_ms_p50} for name, cost in evaluation.costs.items()
    }
    return Markup(charts.stacked_bar_chart("milliseconds a request", bars, PHASE_COLORS, unit="ms"))


def _cost_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows = []
    for name, cost in evaluation.costs.items():
        cells = [f"{cost.latency_ms_p50:.2f} ms", f"{cost.latency_ms_p99:.2f} ms"]
        cells += [f"{cost.phases_ms[phase]:.2f} ms" if phase in cost.phases_ms else "–" for phase in PHASES]
        if evaluation.config.chain_of_thought_tokens:
            cells.append(f"+{cost.chain_of_thought_ms:,.0f} ms" if cost.chain_of_thought_ms else "–")
        rows.append({"name": name, "cells": [*cells, f"{cost.users_per_second:,.0f}"]})
    return rows


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
                    title = _Title(catalogue.unique_titles[title_id])
                    entries.append({"title": title, "kind": kind, "place": place + 1})
            lists.append({"model": model.name, "entries": entries})
        shown.append(
            {
                "key": int(samples.user_ids[index]),
                "history": [_Title(catalogue.titles[item]) for item in samples.history(index)],
                "truth": _Title(catalogue.titles[samples.targets[index]]),
                "lists": lists,
            }
        )
    return shown


def _tastes(evaluation: Evaluation, names: list[str]) -> list[dict[str, Any]]:
    """Popularity lift by the taste of the users: one row a group, one cell a model."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in lift_by_taste(evaluation.models, evaluation.samples, evaluation.catalogue):
        row = rows.setdefault(entry["group"], {"group": entry["group"], "n": entry["n"], "by_model": {}})
        row["by_model"][entry["model"]] = f"{entry['lift']:+.2f}"
    return [row | {"cells": [row["by_model"].get(name, "–") for name in names]} for row in rows.values()]


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
