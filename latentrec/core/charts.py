"""Charts of every report, by matplotlib, as SVG text for a page that needs nothing else.

Text stays text (readable by screen readers and searchable), sizes suit a phone, and the colors are Okabe and
Ito's, which color-blind readers can distinguish. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#444444", "#B00020")
INK, SOFT, GRID = "#1c2430", "#5b6675", "#dfe4ea"
WIDTH = 420
"""Points; an SVG scales to its column, so that this sets how large its text looks."""
_ROW = 28
_LABEL = 20
_LETTER = 8.5
"""Points that a digit takes at most in the fonts of browsers, at this size of text."""


class Estimate(Protocol):
    """A figure with its interval."""

    @property
    def value(self) -> float:
        """The figure drawn so far."""

    @property
    def low(self) -> float:
        """Lower end of its interval."""

    @property
    def high(self) -> float:
        """Upper end of its interval."""


def color_of(names: Sequence[str]) -> dict[str, str]:
    """One color a name, the same in every chart of a report."""
    return {name: COLORS[index % len(COLORS)] for index, name in enumerate(names)}


def standalone(svg: str) -> str:
    """A chart as a file of its own, on white, for pages that show images."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    opening, rest = svg.split(">", 1)
    return f'{opening} {names} style="background:#fff">{rest}\n'


def interval_chart(title: str, rows: Mapping[str, Estimate], colors: Mapping[str, str]) -> str:
    """Points with whiskers, one row a name; the axis begins at 0."""
    with _chart(title, 42 + _ROW * len(rows)) as (axes, svg):
        for index, (name, row) in enumerate(rows.items()):
            _whisker(axes, row, index, colors[name], size=6)
            axes.annotate(
                f"{row.value:.3f}",
                (row.high, index),
                (6, 0),
                textcoords="offset points",
                va="center",
                color=SOFT,
            )
        _rows(axes, list(rows))
        axes.set_xlim(0, max((row.high for row in rows.values()), default=1.0) * 1.16 or 1.0)
    return svg[0]


def curve_chart(title: str, curves: Mapping[str, Sequence[float]], colors: Mapping[str, str]) -> str:
    """One line a name over k = 1, 2, …; the axis begins at 0."""
    with _chart(title, 250) as (axes, svg):
        for name, values in curves.items():
            axes.plot(range(1, len(values) + 1), values, color=colors[name], linewidth=1.8)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("k")
    return svg[0]


def line_chart(
    title: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    holds: tuple[float, float] | None = (0.0, 1.0),
) -> str:
    """Lines of (steps, values) with a legend below.

    Args:
        title: read out by screen readers.
        lines: by name; the same count of steps and values each.
        holds: values that the axis shows whatever the lines do; ``None``: the lines alone decide.
    """
    with _chart(title, 260) as (axes, svg):
        for (name, (steps, values)), color in zip(lines.items(), itertools.cycle(COLORS), strict=False):
            axes.plot(steps, values, color=color, linewidth=1.6, label=name)
        if holds is not None:
            everything = [*holds, *(value for _, values in lines.values() for value in values)]
            axes.set_ylim(min(everything) - 0.03, max(everything) + 0.03)
        axes.set_xlabel("step")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
    return svg[0]


def group_chart(
    title: str,
    groups: Mapping[str, Mapping[str, Estimate]],
    sizes: Mapping[str, int],
    colors: Mapping[str, str],
) -> str:
    """One band a group, in it a point with its whisker for each name."""
    widest = max((len(rows) for rows in groups.values()), default=1)
    band = max(11 * widest + 14, 46)
    with _chart(title, 42 + band * len(groups)) as (axes, svg):
        for index, rows in enumerate(groups.values()):
            offsets = [(place + 1) / (widest + 1) - 0.5 for place in range(len(rows))]
            for offset, (name, row) in zip(offsets, rows.items(), strict=True):
                _whisker(axes, row, index + offset, colors[name], size=4.5)
            if index:
                axes.axhline(index - 0.5, color=GRID, linewidth=1)
        _rows(axes, [f"{_wrapped(group)}\nn = {sizes[group]:,}" for group in groups])
        axes.set_xlim(left=0)
    return svg[0]


def stacked_bar_chart(
    title: str, bars: Mapping[str, Mapping[str, float]], colors: Mapping[str, str], *, unit: str
) -> str:
    """One bar a name, one color a part, the total beside it."""
    with _chart(title, 42 + _ROW * len(bars)) as (axes, svg):
        for index, parts in enumerate(bars.values()):
            begin = 0.0
            for part, value in parts.items():
                axes.barh(index, value, left=begin, height=0.55, color=colors[part])
                begin += value
            axes.annotate(
                f"{begin:.1f} {unit}",
                (begin, index),
                (5, 0),
                textcoords="offset points",
                va="center",
                color=SOFT,
            )
        _rows(axes, list(bars))
        axes.set_xlim(0, max((sum(parts.values()) for parts in bars.values()), default=1.0) * 1.25 or 1.0)
    return svg[0]


def column_chart(
    title: str,
    labels: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float]]],
    *,
    marks: Sequence[tuple[float, str]] = (),
    wide: bool = False,
) -> str:
    """Stacked columns.

    Args:
        title: read out by screen readers.
        labels: one a column; as many as fit are written below the axis.
        series: (name, color, values) from the bottom up; values are counts ≥ 0, one a column.
        marks: vertical lines as (position in columns, text), such as the boundaries of splits.
        wide: for a chart that stands alone in its row.
    """
    width = 2 * WIDTH if wide else WIDTH
    with _chart(title, 240, width=width, grid="y") as (axes, svg):
        base = [0.0] * len(labels)
        for _, color, values in series:
            axes.bar(range(len(labels)), values, bottom=base, width=0.88, color=color)
            base = [low + value for low, value in zip(base, values, strict=True)]
        fits = max(1, int(width / (_LETTER * max(map(len, labels), default=1) + 16)))
        every = max(1, -(-len(labels) // fits))
        axes.set_xticks(range(0, len(labels), every), labels[::every])
        axes.set_xlim(-0.6, len(labels) - 0.4)
        axes.yaxis.set_major_formatter(lambda value, _: _short(value))
        for number, (position, text) in enumerate(marks):
            axes.axvline(position - 0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                text, (position - 0.5, 1), (-4, -12 - 13 * number), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="right", color=SOFT,
            )  # fmt: skip
        if marks:  # their texts stand above the columns
            axes.set_ylim(0, (max(base, default=0.0) or 1.0) * (1.12 + 0.09 * len(marks)))
    return svg[0].replace('class="plot"', 'class="plot wide"', 1) if wide else svg[0]


def depth_chart(title: str, depths: Sequence[int], rows: Sequence[Estimate], *, mark: int) -> str:
    """Quality over the number of recurrences, on a logarithmic axis; ``mark`` is the training mean μ."""
    with _chart(title, 260, grid="y") as (axes, svg):
        values, color = [row.value for row in rows], COLORS[0]
        below = [row.value - row.low for row in rows]
        above = [row.high - row.value for row in rows]
        axes.set_xscale("log", base=2)
        axes.errorbar(depths, values, [below, above], color=color, fmt="o-", capsize=3, markersize=4)
        axes.set_xticks(depths, [str(depth) for depth in depths], minor=False)
        axes.minorticks_off()
        axes.set_ylim(0, max((row.high for row in rows), default=1.0) * 1.12 or 1.0)
        if depths[0] <= mark <= depths[-1]:
            axes.axvline(mark, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                "μ", (mark, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points"
            )
        axes.set_xlabel("recurrences")
        axes.set_title(title, fontsize=13, loc="left")
    return svg[0]


@contextmanager
def _chart(
    title: str, height: float, *, width: float = WIDTH, grid: str = "x"
) -> Iterator[tuple[Axes, list[str]]]:
    """An empty pair of axes in the common style; the SVG text is in the list once the block ends."""
    os.environ.setdefault("MPLCONFIGDIR", "/tmp/matplotlib")
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "font.family": "sans-serif",
        "font.size": 13,
        "text.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": SOFT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "svg.fonttype": "none",
        "svg.hashsalt": "latentrec",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(axis=grid, color=GRID, linewidth=1)  # type: ignore[arg-type]
        axes.set_axisbelow(True)
        done: list[str] = []
        yield axes, done
        done.append(_svg(figure, title))


def _svg(figure: Figure, title: str) -> str:
    """The figure as an ``svg`` element: no XML header, ids unique on a page, size left to the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # No metadata, no style for the whole page, no clipping (nothing is drawn outside the axes): a page that
    # needs nothing from outside has no url(…). Only ids that are referred to stay, unique on the page.
    text = re.sub(
        r"\s*<metadata>.*?</metadata>|<style.*?</style>|<clipPath.*?</clipPath>", "", text, flags=re.S
    )
    text = re.sub(r' clip-path="[^"]*"', "", text)
    used = set(re.findall(r'href="#([^"]*)"', text))
    own = f"c{zlib.crc32(text.encode()):08x}"
    text = re.sub(r' id="([^"]*)"', lambda match: f' id="{own}-{match[1]}"' if match[1] in used else "", text)
    text = re.sub(r'href="#', f'href="#{own}-', text)
    text = re.sub(r'font-family: [^;"]*', "font-family: system-ui, sans-serif", text)
    text = re.sub(r"\s*\n\s*", " ", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    opening = (
        f'<svg class="plot" {box[0]} role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
    )
    return opening + text[text.index(">", text.index("<svg")) + 1 :].strip()


def _whisker(axes: Axes, row: Estimate, y: float, color: str, *, size: float) -> None:
    ends = [[max(row.value - row.low, 0.0)], [max(row.high - row.value, 0.0)]]
    axes.errorbar(
        [row.value], [y], xerr=ends, fmt="o", color=color, markersize=size, capsize=3, elinewidth=1.5
    )


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """Name the rows from the top down, in ink, with no line at the left."""
    shown = [
        label if len(label) <= _LABEL or "\n" in label else label[: _LABEL - 1] + "…" for label in labels
    ]
    axes.set_yticks(range(len(labels)), shown, color=INK)
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)


def _wrapped(text: str) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _LABEL:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _short(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"
