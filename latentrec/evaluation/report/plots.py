"""The charts of the evaluation reports, by :mod:`latentrec.core.charts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latentrec.core import charts
from latentrec.core.charts import color_of as colour_of
from latentrec.metrics import Interval

__all__ = [
    "PHASE_COLOURS",
    "colour_of",
    "curves_plot",
    "intervals_plot",
    "latency_plot",
    "lines_plot",
    "slices_plot",
]

PHASE_COLOURS = {"prefill": "#56B4E9", "latent": "#D55E00", "decode": "#0072B2", "request": "#999999"}


def intervals_plot(title: str, rows: Mapping[str, Interval], colours: Mapping[str, str]) -> str:
    """Points with whiskers, one row a model."""
    return charts.interval_chart(title, rows, colours)


def curves_plot(title: str, curves: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> str:
    """One line a model over k = 1, 2, …"""
    return charts.curve_chart(title, curves, colours)


def lines_plot(title: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """Lines of (steps, values), on an axis that holds 0 and 1."""
    return charts.line_chart(title, lines)


def slices_plot(
    title: str,
    groups: Mapping[str, Mapping[str, Interval]],
    sizes: Mapping[str, int],
    colours: Mapping[str, str],
) -> str:
    """For each group a band with a point and whisker for each model."""
    return charts.group_chart(title, groups, sizes, colours)


def latency_plot(title: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    """Stacked bars of milliseconds a request, one row a model, one color a phase."""
    return charts.stacked_bar_chart(title, bars, PHASE_COLOURS, unit="ms")
