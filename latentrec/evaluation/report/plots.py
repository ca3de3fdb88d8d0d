"""Plots as inline SVG text: no drawing library, no external resource, readable on a phone.

Every figure is 420 units wide, so that it fills a phone's width and stands in a grid on a desktop without
its labels shrinking. Colours are Okabe & Ito's, which the colour-blind can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor

from latentrec.metrics import Interval

WIDTH = 420
LABEL_WIDTH = 136
ROW = 30
TOP = 8
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#444444", "#B00020")
PHASE_COLOURS = {"prefill": "#56B4E9", "latent": "#D55E00", "decode": "#0072B2", "request": "#999999"}


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """One colour a model, the same in every plot of a report."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def intervals_plot(title: str, rows: Mapping[str, Interval], colours: Mapping[str, str]) -> str:
    """Dots with whiskers, one row a model; the axis begins at 0."""
    ticks = round_ticks(max((row.high for row in rows.values()), default=1.0))
    x = _scale(ticks[-1])
    parts = [_axis(ticks, x, TOP + ROW * len(rows))]
    for index, (name, row) in enumerate(rows.items()):
        y = TOP + ROW * (index + 0.5)
        colour = colours[name]
        parts.append(_label(name, y))
        parts.append(_whisker(x(row.low), x(row.high), y, colour))
        parts.append(f'<circle cx="{x(row.value):.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
        parts.append(_value(f"{row.value:.3f}", x(row.high) + 5, y))
    return _svg(title, TOP + ROW * len(rows) + 28, parts)


def curves_plot(title: str, curves: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> str:
    """One line a model over k = 1, 2, …; used for HR@k."""
    length = max((len(curve) for curve in curves.values()), default=1)
    ticks = round_ticks(max((max(curve) for curve in curves.values()), default=1.0))
    left, right, bottom = 44.0, WIDTH - 12.0, TOP + 210.0
    parts = []
    for tick in ticks:
        y = bottom - (bottom - TOP - 6) * tick / ticks[-1]
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{tick:g}</text>')
    step = (right - left - 8) / max(length - 1, 1)
    for k in range(1, length + 1):
        x = left + 4 + step * (k - 1)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" class="tick" text-anchor="middle">{k}</text>')
    for name, curve in curves.items():
        points = " ".join(
            f"{left + 4 + step * i:.1f},{bottom - (bottom - TOP - 6) * value / ticks[-1]:.1f}"
            for i, value in enumerate(curve)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
    parts.append(
        f'<text x="{(left + right) / 2}" y="{bottom + 32}" class="tick" text-anchor="middle">k</text>'
    )
    return _svg(title, bottom + 38, parts)


def lines_plot(title: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """Lines over steps, (steps, values) each, on one axis that holds 0, 1 and all values."""
    left, right, bottom = 44.0, WIDTH - 12.0, TOP + 190.0
    values = [value for _, ys in lines.values() for value in ys]
    low, high = min(0.0, *values), max(1.0, *values)
    last = max(step for xs, _ in lines.values() for step in xs)
    ticks = [tick / 2 for tick in range(floor(2 * low), ceil(2 * high) + 1)]

    def y(value: float) -> float:
        return bottom - (bottom - TOP - 6) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    def x(step: float) -> float:
        return left + (right - left) * step / last

    parts = []
    for tick in ticks:
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>')
        parts.append(
            f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" class="tick" text-anchor="end">{tick:g}</text>'
        )
    for step in (0, last / 2, last):
        parts.append(
            f'<text x="{x(step):.1f}" y="{bottom + 18}" class="tick" text-anchor="middle">{step:.0f}</text>'
        )
    for index, ((name, (xs, ys)), colour) in enumerate(zip(lines.items(), COLOURS, strict=False)):
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(xs, ys, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts.append(
            f'<text x="{left + 170 * index:.0f}" y="{bottom + 42}" class="label" style="fill:{colour}">'
            f"{escape(name)}</text>"
        )
    return _svg(title, bottom + 52, parts)


def slices_plot(
    title: str,
    groups: Mapping[str, Mapping[str, Interval]],
    sizes: Mapping[str, int],
    colours: Mapping[str, str],
) -> str:
    """For each group one band with a dot and whisker for each model."""
    high = max((row.high for rows in groups.values() for row in rows.values()), default=1.0)
    ticks = round_ticks(high)
    x = _scale(ticks[-1])
    models = max((len(rows) for rows in groups.values()), default=1)
    band = 11 * models + 14
    parts = [_axis(ticks, x, TOP + band * len(groups))]
    for index, (group, rows) in enumerate(groups.items()):
        top = TOP + band * index
        if index:
            parts.append(f'<line x1="0" x2="{WIDTH}" y1="{top}" y2="{top}" class="grid"/>')
        middle = top + band / 2
        for line, text in enumerate(_wrapped(group, 18)):
            parts.append(f'<text x="2" y="{middle - 8 + 15 * line:.1f}" class="label">{escape(text)}</text>')
        after = middle - 8 + 15 * len(_wrapped(group, 18))
        parts.append(f'<text x="2" y="{after:.1f}" class="tick">n = {sizes[group]:,}</text>')
        for place, (name, row) in enumerate(rows.items()):
            y = top + 12 + 11 * place
            parts.append(_whisker(x(row.low), x(row.high), y, colours[name]))
            parts.append(f'<circle cx="{x(row.value):.1f}" cy="{y:.1f}" r="3.5" fill="{colours[name]}"/>')
    return _svg(title, TOP + band * len(groups) + 28, parts)


def latency_plot(title: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    """Stacked bars of milliseconds a request, one row a model, one colour a phase."""
    ticks = round_ticks(max((sum(parts.values()) for parts in bars.values()), default=1.0))
    x = _scale(ticks[-1])
    parts = [_axis(ticks, x, TOP + ROW * len(bars))]
    for index, (name, phases) in enumerate(bars.items()):
        y = TOP + ROW * (index + 0.5)
        parts.append(_label(name, y))
        begin = 0.0
        for phase, milliseconds in phases.items():
            left, width = x(begin), max(x(begin + milliseconds) - x(begin), 0.5)
            parts.append(
                f'<rect x="{left:.1f}" y="{y - 8:.1f}" width="{width:.1f}" height="16" '
                f'fill="{PHASE_COLOURS[phase]}"><title>{phase} {milliseconds:.2f} ms</title></rect>'
            )
            begin += milliseconds
        parts.append(_value(f"{begin:.1f} ms", x(begin) + 5, y))
    return _svg(title, TOP + ROW * len(bars) + 28, parts)


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _scale(highest: float):
    left, right = LABEL_WIDTH + 6.0, WIDTH - 58.0
    return lambda value: left + (right - left) * value / highest


def _axis(ticks: Sequence[float], x, bottom: float) -> str:
    return "".join(
        f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{bottom}" class="grid"/>'
        f'<text x="{x(tick):.1f}" y="{bottom + 16}" class="tick" text-anchor="middle">{tick:g}</text>'
        for tick in ticks
    )


def _whisker(low: float, high: float, y: float, colour: str) -> str:
    ends = "".join(f"M{end:.1f} {y - 4:.1f}V{y + 4:.1f}" for end in (low, high))
    return f'<path d="M{low:.1f} {y:.1f}H{high:.1f}{ends}" stroke="{colour}" stroke-width="1.6" fill="none"/>'


def _label(name: str, y: float) -> str:
    shown = name if len(name) <= 18 else name[:17] + "…"
    return f'<text x="2" y="{y + 4:.1f}" class="label">{escape(shown)}<title>{escape(name)}</title></text>'


def _value(text: str, x: float, y: float) -> str:
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" class="tick">{text}</text>'


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def round_ticks(highest: float, wanted: int = 4) -> list[float]:
    """Round values from 0 to at least ``highest``."""
    highest = max(highest, 1e-6)
    power = 10.0**-12
    while power * 10 <= highest / wanted:
        power *= 10
    step = next(power * m for m in (1, 2, 2.5, 5, 10, 20) if power * m * wanted >= highest)
    return [round(step * i, 12) for i in range(int(-(-highest // step)) + 1)]
