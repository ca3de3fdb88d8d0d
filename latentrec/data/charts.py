"""Small charts as inline SVG: stacked columns over time and plain columns, with axes and no scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence

WIDTH, HEIGHT = 760, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 26, 34


def columns_chart(
    labels: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float]]],
    *,
    title: str,
    marks: Sequence[tuple[float, str]] = (),
    width: int = WIDTH,
) -> str:
    """Stacked columns.

    Args:
        labels: one a column; as many as fit are written below the axis.
        series: (name, CSS colour, values) from the bottom up; values are counts ≥ 0, one a column.
        title: above the chart, and read out by screen readers.
        marks: vertical lines as (position in columns, text), such as split boundaries.
        width: of the chart in pixels.
    """
    inner_width, inner_height = width - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    n = max(len(labels), 1)
    totals = [sum(values[index] for _, _, values in series) for index in range(len(labels))]
    top = _nice_top(max(totals, default=0))
    step = inner_width / n
    parts = [
        f'<svg viewBox="0 0 {width} {HEIGHT}" width="{width}" role="img" aria-label="{html.escape(title)}">',
        f'<text class="title" x="{_LEFT}" y="14">{html.escape(title)}</text>',
    ]
    for tick in range(5):
        y = _TOP + inner_height * (1 - tick / 4)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{_short(top * tick / 4)}</text>"
        )
    for index, label in enumerate(labels):
        x, base = _LEFT + index * step, float(_TOP + inner_height)
        for name, colour, values in series:
            height = inner_height * values[index] / top if top else 0
            if height:
                base -= height
                tip = html.escape(f"{label}: {name + ' ' if name else ''}{values[index]:,.0f}")
                parts.append(
                    f'<rect x="{x + step * 0.06:.2f}" y="{base:.2f}" width="{step * 0.88:.2f}" '
                    f'height="{height:.2f}" fill="{colour}"><title>{tip}</title></rect>'
                )
    every = max(1, -(-len(labels) * (max(map(len, labels), default=0) * 6 + 12) // inner_width))
    for index in range(0, len(labels), every):
        x = _LEFT + (index + 0.5) * step
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
            f"{html.escape(labels[index])}</text>"
        )
    for number, (position, text) in enumerate(marks):
        x = _LEFT + position * step
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_TOP + inner_height}"/>')
        parts.append(
            f'<text class="tick" x="{x - 4:.1f}" y="{_TOP + 10 + 13 * number}" text-anchor="end">'
            f"{html.escape(text)}</text>"
        )
    parts.append("</svg>")
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{html.escape(name)}</span>'
        for name, colour, _ in series
        if name
    )
    return "".join(parts) + (f'<div class="legend">{legend}</div>' if legend else "")


def _nice_top(value: float) -> float:
    """The smallest of 1, 2, 4, 5, 8, 10 × a power of ten that is not below the value."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (len(str(int(value))) - 1)
    return next(factor * power for factor in (1, 2, 4, 5, 8, 10) if factor * power >= value)


def _short(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):g}{suffix}"
    return f"{value:g}"
