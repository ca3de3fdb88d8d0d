"""The picture of a pipeline, drawn from the pipeline itself: ``python -m docs.pictures.pipeline``.

Writes ``pipeline-light.svg`` and ``pipeline-dark.svg`` beside this file. A test holds them to the pipeline.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from pipeline.dags import pipeline_of

HERE = Path(__file__).parent
THEMES = {
    "light": {"ink": "#1c2430", "soft": "#5b6675", "line": "#9aa5b1", "box": "#ffffff", "tint": "#eef4fa"},
    "dark": {"ink": "#e6edf3", "soft": "#9da7b3", "line": "#6e7681", "box": "#161b22", "tint": "#12263a"},
}
EDGE = "#3b8ac4"
NOTES = {
    "preflight": "checks everything\nbefore it costs",
    "data-prep": "reviews → Parquet,\nsplits, report",
    "evaluate": "same users, intervals,\npaired tests, gate",
    "register": "version, alias,\nmodel card",
}
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 158, 64, 34, 14, 12


def graph(system: str) -> tuple[dict[str, str], dict[str, set[str]]]:
    """(name → title, name → names that it waits for) of the steps of a pipeline, without its exit handler."""
    spec = pipeline_of(system).pipeline_spec
    titles: dict[str, str] = {}
    waits: dict[str, set[str]] = {}

    def visit(dag: Any, before: set[str]) -> None:
        own = {name for name, task in dag.tasks.items() if not _is_group(spec, task)}
        for name, task in dag.tasks.items():
            needs = (set(task.dependent_tasks) & own) or before
            if _is_group(spec, task):
                visit(spec.components[task.component_ref.name].dag, needs or before)
            elif not task.trigger_policy.strategy:
                titles[name] = task.task_info.name
                waits[name] = needs

    visit(spec.root.dag, set())
    return titles, {name: _direct(name, waits) for name in waits}


def _direct(name: str, waits: dict[str, set[str]]) -> set[str]:
    """What a step waits for, without what stands before that anyway."""

    def before(other: str) -> set[str]:
        return waits[other].union(*(before(one) for one in waits[other]))

    return waits[name] - set().union(*(before(other) for other in waits[name]))


def _is_group(spec: Any, task: Any) -> bool:
    return spec.components[task.component_ref.name].HasField("dag")


def columns(waits: dict[str, set[str]]) -> list[list[str]]:
    """Steps by how many others stand before them, in the order of their names within a column."""
    depth: dict[str, int] = {}

    def of(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((of(other) for other in waits[name]), default=-1)
        return depth[name]

    found: list[list[str]] = [[] for _ in range(max(map(of, waits)) + 1)]
    for name in sorted(waits):
        found[depth[name]].append(name)
    return found


def draw(system: str, theme: str) -> str:
    """The pipeline as SVG text; steps run from left to right."""
    colors, (titles, waits) = THEMES[theme], graph(system)
    placed = columns(waits)
    rows = max(map(len, placed))
    height = 2 * MARGIN + rows * HEIGHT + (rows - 1) * GAP_Y + 26
    width = 2 * MARGIN + len(placed) * WIDTH + (len(placed) - 1) * GAP_X
    at: dict[str, tuple[float, float]] = {}
    for index, names in enumerate(placed):
        top = (height - 26 - len(names) * HEIGHT - (len(names) - 1) * GAP_Y) / 2
        for row, name in enumerate(names):
            y = top + row * (HEIGHT + GAP_Y)
            if len(names) == 1 and len(waits[name]) == 1:  # in line with what it follows
                y = at[next(iter(waits[name]))][1]
            at[name] = (MARGIN + index * (WIDTH + GAP_X), y)
    parts = [_edge(at[first], at[last], colors) for last in sorted(waits) for first in sorted(waits[last])]
    parts += [_box(titles[name], NOTES.get(name, ""), *at[name], colors) for name in at]
    foot = "each box: a container on Kubernetes, a process on your machine · a run summary always comes last"
    parts.append(_text(foot, width / 2, height - 8, 13, colors["soft"]))
    title = f"{system}: " + " → ".join(", ".join(titles[name] for name in names) for names in placed)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'role="img" font-family="system-ui, sans-serif"><title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _edge(start: tuple[float, float], end: tuple[float, float], colors: dict[str, str]) -> str:
    x1, y1, x2, y2 = start[0] + WIDTH, start[1] + HEIGHT / 2, end[0], end[1] + HEIGHT / 2
    turn = x2 - GAP_X  # past the columns between, the line runs straight
    middle = x2 - GAP_X / 2
    return (
        f'<path d="M{x1:.0f} {y1:.1f}H{turn:.0f}'
        f'C{middle:.0f} {y1:.1f} {middle:.0f} {y2:.1f} {x2:.0f} {y2:.1f}" '
        f'fill="none" stroke="{colors["line"]}" stroke-width="1.5"/>'
    )


def _box(title: str, note: str, x: float, y: float, colors: dict[str, str]) -> str:
    lines = [line for line in note.split("\n") if line]
    base = y + HEIGHT / 2 + 5 - 8 * len(lines)
    text = _text(title, x + WIDTH / 2, base, 14, colors["ink"], "600")
    for number, line in enumerate(lines, 1):
        text += _text(line, x + WIDTH / 2, base + 16 * number, 12, colors["soft"])
    fill = colors["tint"] if lines else colors["box"]
    return (
        f'<rect x="{x}" y="{y:.1f}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{fill}" '
        f'stroke="{EDGE}" stroke-width="1.5"/>{text}'
    )


def _text(text: str, x: float, y: float, size: int, color: str, weight: str = "400") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.1f}" text-anchor="middle" font-size="{size}" font-weight="{weight}" '
        f'fill="{color}">{escape(text)}</text>'
    )


def main() -> None:
    """Write both themes."""
    for theme in THEMES:
        (HERE / f"pipeline-{theme}.svg").write_text(draw("latentr3", theme), encoding="utf-8")


if __name__ == "__main__":
    main()
