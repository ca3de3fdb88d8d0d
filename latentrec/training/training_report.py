"""How one model was trained, from its directory alone: a page with curves and figures.

A step shows it on its own page in Kubeflow and MLflow; a step served from the cache shows that of the
training that made its model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from latentrec.core.charts import line_chart
from latentrec.core.html_page import render_page
from latentrec.models import ModelInfo, read_curve, read_model

MOST_POINTS = 400
"""Of a line; a page is no wider, and more points make it slow."""
MOST_ROWS = 20
"""Of the table of evaluations."""

CHARTS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("Loss", {"loss": "training", "valid/loss": "validation"}),
    ("Objective", {"objective": "training", "valid/objective": "validation"}),
    ("Ranking on validation", {"valid/ndcg_at_10": "NDCG@10", "valid/hr_at_10": "HR@10"}),
    ("Reward", {"reward": "mean reward", "format_valid": "format validity"}),
    ("Length of answers", {"completion_length": "tokens"}),
)
"""Title of each chart, and its lines: name of the figure and what the legend calls it."""

STAGES = {
    "sequential": "next-item training",
    "spt": "phase 1 (SPT)",
    "rpt": "phase 2 (RPT)",
    "sft": "stage 1 (SFT)",
    "title_objective": "stage 2 (title objective)",
    "grpo": "stage 2 (GRPO)",
    "pretrain_rating": "starting model",
    "cold_start_sft": "cold start (SFT)",
    "rating_grpo": "GRPO",
}


def training_report(directory: str | Path) -> str:
    """The report of a finished model directory: an HTML page that needs nothing from outside.

    Raises:
        UserError: it is not one.
    """
    info, manifest = read_model(directory, verify=False)
    curve = read_curve(directory)
    evaluations = [entry for entry in curve if any(name.startswith("valid/") for name in entry)]
    context = {
        "heading": f"{info.system}, {STAGES.get(info.stage, info.stage)}" if curve else info.system,
        "kept": _kept(info, manifest.counts, evaluations),
        "facts": [(name.replace("_", " "), _shown(value)) for name, value in manifest.counts.items()],
        "notes": info.notes,
        "results": [(name, _shown(value)) for name, value in info.metrics.items()],
        "evaluations": _table(evaluations),
        "settings": [(name, "" if value is None else str(value)) for name, value in info.config.items()],
    }
    charts = [(title, Markup(svg)) for title, svg in _charts(curve)]
    return render_page("latentrec.training", "training_report.html", {**context, "charts": charts})


def _kept(info: ModelInfo, counts: Mapping[str, Any], evaluations: Sequence[Mapping[str, float]]) -> str:
    best = counts.get("best_step", info.metrics.get("best_epoch"))
    if best is None or not evaluations:
        return "The weights are those that training ended with."
    unit = "epoch" if "best_epoch" in info.metrics else "step"
    return f"Best on validation: {unit} {int(best):,} of {int(evaluations[-1]['step']):,}."


def _charts(curve: Sequence[Mapping[str, float]]) -> list[tuple[str, str]]:
    found = []
    for title, names in CHARTS:
        lines = {label: _line(curve, name) for name, label in names.items()}
        lines = {label: line for label, line in lines.items() if len(line[0]) > 1}
        if lines:
            found.append((title, line_chart(title, lines, holds=None)))
    return found


def _line(curve: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one figure, at most :data:`MOST_POINTS`: each the mean of its neighbors."""
    points = [(entry["step"], entry[name]) for entry in curve if name in entry]
    size = -(-len(points) // MOST_POINTS) or 1
    groups = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return (
        [group[-1][0] for group in groups],
        [sum(value for _, value in group) / len(group) for group in groups],
    )


def _table(evaluations: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Figures of each evaluation, or of :data:`MOST_ROWS` spread over training, the last among them."""
    names = list(dict.fromkeys(name for entry in evaluations for name in entry if name.startswith("valid/")))
    every = -(-len(evaluations) // MOST_ROWS) or 1
    chosen = list(reversed(evaluations[::-1][::every]))
    rows = [[f"{entry['step']:,.0f}", *(_shown(entry.get(name)) for name in names)] for entry in chosen]
    return {"columns": ["step", *(name.removeprefix("valid/") for name in names)], "rows": rows}


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.3g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
