"""Tables and charts of the ranking report, as rows and SVG that the templates lay out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from latentrec.core import charts
from latentrec.evaluation.ranking.result import Evaluation
from latentrec.evaluation.ranking.scoring import K_MAX
from latentrec.evaluation.ranking.tables import against, lift_by_taste
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
SIGNIFICANT = 0.05
PHASES = ("prefill", "latent", "decode")


def metric_table(
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


def metric_figures(evaluation: Evaluation, colors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Intervals of the main metrics for each model, and hit rate against k; an SVG each."""
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


def comparison_blocks(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Paired differences, one block for each model that the others are compared with."""
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


def slice_figures(evaluation: Evaluation, colors: Mapping[str, str]) -> list[dict[str, Any]]:
    """NDCG@10 by group of samples, one SVG for each way to group them."""
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


def slice_rows(evaluation: Evaluation, names: list[str]) -> list[dict[str, Any]]:
    """NDCG@10 by group of samples: one row a group, one cell a model."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in evaluation.slices:
        key = (entry["dimension"], entry["group"])
        row = rows.setdefault(key, {"dimension": key[0], "group": key[1], "n": entry["n"], "by_model": {}})
        row["by_model"][entry["model"]] = f"{entry['value']:.4f} [{entry['low']:.4f}, {entry['high']:.4f}]"
    return [row | {"cells": [row["by_model"].get(name, "") for name in names]} for row in rows.values()]


def latency_svg(evaluation: Evaluation) -> Markup:
    """Milliseconds of one request, by model and phase."""
    bars = {
        name: cost.phases_ms or {"request": cost.latency_ms_p50} for name, cost in evaluation.costs.items()
    }
    return Markup(charts.stacked_bar_chart("milliseconds a request", bars, PHASE_COLORS, unit="ms"))


def cost_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Latency and throughput, one row a model."""
    rows = []
    for name, cost in evaluation.costs.items():
        cells = [f"{cost.latency_ms_p50:.2f} ms", f"{cost.latency_ms_p99:.2f} ms"]
        cells += [f"{cost.phases_ms[phase]:.2f} ms" if phase in cost.phases_ms else "–" for phase in PHASES]
        rows.append({"name": name, "cells": [*cells, f"{cost.users_per_second:,.0f}"]})
    return rows


def taste_rows(evaluation: Evaluation, names: list[str]) -> list[dict[str, Any]]:
    """Popularity lift by the taste of the users: one row a group, one cell a model."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in lift_by_taste(evaluation.models, evaluation.samples, evaluation.catalogue):
        row = rows.setdefault(entry["group"], {"group": entry["group"], "n": entry["n"], "by_model": {}})
        row["by_model"][entry["model"]] = f"{entry['lift']:+.2f}"
    return [row | {"cells": [row["by_model"].get(name, "–") for name in names]} for row in rows.values()]
