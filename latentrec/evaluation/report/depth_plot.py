"""Quality over depth as a stand-alone SVG file: the style is inside, so that Markdown pages can show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from latentrec.evaluation.report.plots import COLOURS, WIDTH, round_ticks


@dataclass(frozen=True)
class DepthPoint:
    """One depth: metrics averaged over initial states, the interval by user, and what it costs.

    Attributes:
        spread: standard deviation of NDCG over the seeds of the initial state.
        top1_agreement: share of samples whose first item is the same under two seeds.
        latency_ms: median time of one user's forward and scoring, on one thread.
    """

    depth: int
    ndcg: float
    low: float
    high: float
    hit_rate: float
    spread: float
    top1_agreement: float
    latency_ms: float


LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 62.0, WIDTH - 16.0, 30.0, 236.0, 280
INK, GRID = "#333333", "#dddddd"


def depth_plot(points: Sequence[DepthPoint], *, k: int, split: str, mean_steps: int) -> str:
    """NDCG with its interval by user at each depth, steps on a logarithmic axis; μ is marked."""
    ticks = round_ticks(max(point.high for point in points))
    first, last = math.log2(points[0].depth), math.log2(points[-1].depth)

    def x(steps: float) -> float:
        share = (math.log2(steps) - first) / ((last - first) or 1.0)
        return LEFT + 14 + (RIGHT - LEFT - 28) * share

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * value / ticks[-1]

    parts = []
    for tick in ticks:
        parts.append(_line(LEFT, y(tick), RIGHT, y(tick), GRID))
        parts.append(_text(f"{tick:g}", LEFT - 6, y(tick) + 4, "end"))
    if points[0].depth <= mean_steps <= points[-1].depth:
        parts.append(_line(x(mean_steps), TOP, x(mean_steps), BOTTOM, GRID, 'stroke-dasharray="4 3"'))
        parts.append(_text("μ", x(mean_steps), TOP - 4, "middle"))
    for point in points:
        parts.append(_text(str(point.depth), x(point.depth), BOTTOM + 16, "middle"))
        parts.append(_line(x(point.depth), y(point.low), x(point.depth), y(point.high), COLOURS[0]))
        parts.append(
            f'<circle cx="{x(point.depth):.1f}" cy="{y(point.ndcg):.1f}" r="3.5" fill="{COLOURS[0]}"/>'
        )
    line = " ".join(f"{x(point.depth):.1f},{y(point.ndcg):.1f}" for point in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5"/>')
    parts.append(_text("steps of thought", (LEFT + RIGHT) / 2, BOTTOM + 34, "middle"))
    parts.append(_text(f"NDCG@{k} ({split}), 95 % by user", LEFT, 12, "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def _text(text: str, x: float, y: float, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{INK}" text-anchor="{anchor}">{text}</text>'
