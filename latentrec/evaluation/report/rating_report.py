"""The report of a rating evaluation: one self-contained HTML page, and the same as Markdown."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from latentrec.core import charts
from latentrec.core.html_page import render_markdown, render_page
from latentrec.data.dataset import Dataset
from latentrec.evaluation.evaluate_config import EvaluateConfig
from latentrec.evaluation.gate_decision import GateDecision
from latentrec.evaluation.rating.findings import against_the_floor, by_name, where_it_began
from latentrec.evaluation.rating.rating_scores import RatingScores
from latentrec.evaluation.report.gate_facts import gate_facts, gate_sentence
from latentrec.metrics import Interval
from latentrec.metrics.rating import confusion
from latentrec.models import ModelInfo, read_curve
from latentrec.prompts.rating_examples import RatingExample
from latentrec.prompts.rating_format import FAULTS

COLUMNS = (
    ("mae", "MAE", ".4f"),
    ("rmse", "RMSE", ".4f"),
    ("unparsable_rate", "unparsable", ".1%"),
    ("accuracy", "right star", ".1%"),
    ("tokens_per_prediction", "tokens", ".1f"),
    ("seconds_per_prediction", "seconds", ".4f"),
)
OF_LANGUAGE_MODELS = {"unparsable_rate", "tokens_per_prediction", "seconds_per_prediction"}


@dataclass(frozen=True)
class RatingEvaluation:
    """Everything that the report shows; ``scores`` in the order of the tables, ``floor`` the strongest
    constant or bias model (or the baseline that was asked for).
    """

    config: EvaluateConfig
    dataset: Dataset
    examples: list[RatingExample]
    scores: list[RatingScores]
    infos: dict[str, ModelInfo]
    directories: dict[str, Path]
    table: dict[str, dict[str, Interval]]
    comparisons: dict[str, list[dict[str, Any]]]
    gate: GateDecision
    floor: str
    champion: str | None
    warnings: list[str]


def write_rating_reports(evaluation: RatingEvaluation, directory: Path) -> None:
    """Write ``report.html`` and ``report.md``."""
    context = _context(evaluation)
    for name, render in (("report.html", render_page), ("report.md", render_markdown)):
        page = render("latentrec.evaluation", f"rating_{name}", context)
        (directory / name).write_text(page, encoding="utf-8")


def _context(evaluation: RatingEvaluation) -> dict[str, Any]:
    gate = evaluation.gate
    colors = charts.color_of([score.name for score in evaluation.scores])
    absolute = {name: metrics["mae"] for name, metrics in evaluation.table.items()}
    squared = {name: metrics["rmse"] for name, metrics in evaluation.table.items()}
    return {
        "gate": gate,
        "headline": f"{gate.challenger_name} "
        + ("may become the champion" if gate.promote else "is not promoted"),
        "sentence": gate_sentence(gate),
        "facts": gate_facts(gate),
        "warnings": evaluation.warnings,
        "readable": f"{gate.min_readable_share:.0%}",
        "setting": _setting(evaluation),
        "placeholders": _placeholders(evaluation.infos),
        "reading": _reading(evaluation),
        "began": where_it_began(evaluation.infos),
        "columns": [label for _, label, _ in COLUMNS],
        "rows": _rows(evaluation),
        "figures": [
            {"title": title, "svg": Markup(charts.interval_chart(title, rows, colors))}
            for title, rows in (("MAE", absolute), ("RMSE", squared))
        ],
        "floor": evaluation.floor,
        "comparisons": [_comparison(row) for rows in evaluation.comparisons.values() for row in rows],
        "confusions": _confusions(evaluation),
        "faults": _faults(evaluation),
        "curves": _curves(evaluation),
        "measured": _measured(evaluation),
        "examples": _examples(evaluation),
        "notes": [f"{name}: {note}" for name, info in evaluation.infos.items() for note in info.notes],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "resamples": f"{evaluation.config.n_resamples:,}",
        "seed": evaluation.config.seed,
    }


def _setting(evaluation: RatingEvaluation) -> str:
    users = len({example.user_id for example in evaluation.examples})
    train_end = datetime.fromtimestamp(evaluation.dataset.train_end, UTC)
    return (
        f"{len(evaluation.examples):,} {evaluation.config.split} ratings of {users:,} users; "
        f"training ends {train_end:%Y-%m-%d}. "
        f"Dataset {evaluation.dataset.fingerprint[:12]}."
    )


def _placeholders(infos: Mapping[str, ModelInfo]) -> list[tuple[str, str]]:
    """Each note on a placeholder once, with the models that it holds for: ``start and reczero start``."""
    holders: dict[str, list[str]] = {}
    for name, info in infos.items():
        for note in info.notes:
            if "placeholder" in note:
                holders.setdefault(note, []).append(name)
    return [
        (", ".join(names[:-1]) + f" and {names[-1]} start" if names[1:] else f"{names[0]} starts", note)
        for note, names in holders.items()
    ]


def _reading(evaluation: RatingEvaluation) -> list[str]:
    """The challenger against the floor in words; nothing where another baseline was asked for."""
    name = evaluation.gate.challenger_name
    rows = [
        row
        for row in evaluation.comparisons["against_baseline"]
        if (row["model"], row["reference"]) == (name, evaluation.floor)
    ]
    truth = np.array([example.rating for example in evaluation.examples])
    challenger, floor, median = (
        by_name(evaluation.scores, each) for each in (name, evaluation.floor, "global median")
    )
    return [sentence for row in rows for sentence in against_the_floor(challenger, floor, median, row, truth)]


def _rows(evaluation: RatingEvaluation) -> list[dict[str, Any]]:
    roles = {
        evaluation.floor: "floor",
        evaluation.champion or "": "champion",
        evaluation.gate.challenger_name: "challenger",
    }
    best = {metric: min(row[metric].value for row in evaluation.table.values()) for metric in ("mae", "rmse")}
    return [
        {
            "name": name,
            "role": roles.get(name, ""),
            "cells": [
                _cell(metrics[metric], form, best.get(metric))
                if name in evaluation.infos or metric not in OF_LANGUAGE_MODELS
                else {"value": "–", "interval": "", "best": False}
                for metric, _, form in COLUMNS
            ],
        }
        for name, metrics in evaluation.table.items()
    ]


def _cell(figure: Interval, form: str, best: float | None) -> dict[str, Any]:
    low, high = f"{figure.low:{form}}", f"{figure.high:{form}}"
    return {
        "value": f"{figure.value:{form}}",
        "interval": f"[{low}, {high}]" if low != high else "",
        "best": figure.value == best,
    }


def _comparison(row: Mapping[str, Any]) -> dict[str, Any]:
    verdict = "cannot tell"
    if row["high"] < 0:
        verdict = "better"
    elif row["low"] > 0:
        verdict = "worse"
    return {
        "model": row["model"],
        "reference": row["reference"],
        "difference": f"{row['difference']:+.4f}",
        "interval": f"[{row['low']:+.4f}, {row['high']:+.4f}]",
        "p_value": f"{row['p_value']:.4f}",
        "verdict": verdict,
    }


def _confusions(evaluation: RatingEvaluation) -> list[dict[str, Any]]:
    truth = np.array([example.rating for example in evaluation.examples])
    shown = {evaluation.floor, *evaluation.infos}
    return [
        {
            "name": score.name,
            "rows": [
                {"star": star, "cells": [f"{count:,}" for count in counts]}
                for star, counts in enumerate(confusion(score.predicted, truth).tolist(), start=1)
            ],
        }
        for score in evaluation.scores
        if score.name in shown
    ]


def _faults(evaluation: RatingEvaluation) -> list[dict[str, Any]]:
    return [
        {"name": score.name, "kind": kind, "count": f"{count:,}"}
        for score in evaluation.scores
        if score.name in evaluation.infos
        for kind, count in Counter(fault for fault in score.faults if fault is not None).most_common()
    ]


def _curves(evaluation: RatingEvaluation) -> list[dict[str, Any]]:
    """Reward and format validity over training, of each model that was trained by reinforcement."""
    found = []
    for name, directory in evaluation.directories.items():
        curve = read_curve(directory)
        lines = {
            label: ([entry["step"] for entry in curve if key in entry], [e[key] for e in curve if key in e])
            for key, label in (("format_valid", "format validity"), ("reward", "mean reward"))
        }
        lines = {label: points for label, points in lines.items() if len(points[0]) > 1}
        if lines:
            found.append({"name": name, "svg": Markup(charts.line_chart(f"{name}: training", lines))})
    return found


def _measured(evaluation: RatingEvaluation) -> list[dict[str, str]]:
    """Validation figures before and after training; of a model without the former where no other has them."""
    rows = []
    trained = {name: info for name, info in evaluation.infos.items() if "start_format_valid" in info.metrics}
    for name, info in (trained or evaluation.infos).items():
        kinds = [
            kind
            for kind in (*FAULTS, "truncated")
            if {f"start_fault_{kind}", f"end_fault_{kind}"} & info.metrics.keys()
        ]
        for key, label, absent in (
            ("format_valid", "format validity, sampled at temperature 1", None),
            *((f"fault_{kind}", f"not valid: {kind.replace('_', ' ')}", 0.0) for kind in kinds),
            ("format_valid_greedy", "format validity, greedy", None),
            ("reward", "mean reward, sampled", None),
            ("mae_greedy", "MAE of valid answers, greedy", None),
        ):
            measured = "start_format_valid" in info.metrics
            before = info.metrics.get(f"start_{key}", absent if measured else None)
            after = info.metrics.get(f"end_{key}", absent)
            if before is not None or after is not None:
                rows.append(
                    {"name": name, "label": label, "before": _or_none(before), "after": _or_none(after)}
                )
    return rows


def _or_none(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _examples(evaluation: RatingEvaluation) -> list[dict[str, Any]]:
    models = [score for score in evaluation.scores if score.name in evaluation.infos]
    if not models or not evaluation.config.example_users:
        return []
    rng = np.random.default_rng(evaluation.config.seed)
    count = min(evaluation.config.example_users, len(evaluation.examples))
    chosen = np.sort(rng.choice(len(evaluation.examples), size=count, replace=False))
    return [
        {
            "title": evaluation.examples[index].title,
            "truth": f"{evaluation.examples[index].rating:g}",
            "history": [f"{entry.title}: {entry.rating:g}" for entry in evaluation.examples[index].history],
            "answers": [{"name": score.name, "text": score.texts[index]} for score in models],
        }
        for index in chosen.tolist()
    ]
