"""The data report: one self-contained HTML file that says what was done to the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from markupsafe import Markup

from latentrec.core.charts import column_chart
from latentrec.core.html_page import render_page
from latentrec.data import statistics
from latentrec.data.dataset_summary import DatasetSummary, day
from latentrec.data.validation import Check

COLORS = {"first events": "#b9c0c9", "train": "#0072B2", "valid": "#E69F00", "test": "#D55E00"}
_FILTERS = {
    "raw": "events read",
    "window": "inside the time window",
    "title": "item has a usable title",
    "duplicates": "exact repeats handled",
    "k_core": "k-core",
    "max_users": "random subset of users",
}


def write_report(directory: Path, prepared: DatasetSummary, checks: list[Check]) -> None:
    """Write ``report.html`` beside the Parquet files, which must be there already."""
    items = pq.read_table(directory / "items.parquet", columns=["title", "title_id"])
    data = prepared.interactions
    context = {
        "period": [day(int(data.time.min())), day(int(data.time.max()))],
        "facts": _facts(prepared),
        "checks": sorted(checks, key=lambda check: check.ok),
        "funnel": _funnel(prepared),
        "widened": _widened(prepared),
        "splits": _splits(prepared),
        "time_chart": _time_chart(prepared),
        "colors": COLORS,
        "charts": [
            ("Samples by length of history", _history_chart(prepared)),
            ("Users by number of events", _counts_chart(data.user, "Users by number of events")),
            ("Items by number of events", _counts_chart(data.item, "Items by number of events")),
        ],
        "shares": statistics.share_figures(prepared, items["title_id"].to_numpy()),
        "examples": statistics.examples(prepared, items["title"].to_pylist()),
        "sources": _sources(prepared),
        "bad_lines": _bad_lines(prepared),
        "settings": [
            (name, _show(getattr(prepared.config, name)), field.description or "")
            for name, field in type(prepared.config).model_fields.items()
        ],
    }
    page = render_page("latentrec.data", "data_report.html", context)
    (directory / "report.html").write_text(page, encoding="utf-8")


def _facts(prepared: DatasetSummary) -> list[tuple[str, str]]:
    data, split = prepared.interactions, prepared.split
    return [
        ("interactions", f"{len(data):,}"),
        ("users", f"{len(data.user_keys):,}"),
        ("items", f"{len(data.item_keys):,}"),
        *((f"{name} samples", f"{len(split.targets(name)):,}") for name in ("train", "valid", "test")),
    ]


def _funnel(prepared: DatasetSummary) -> list[dict[str, str]]:
    steps = prepared.filtered.funnel
    rows = []
    for step in steps:
        share = step.interactions / max(steps[0].interactions, 1)
        counts = {name: f"{getattr(step, name):,}" for name in ("interactions", "users", "items")}
        rows.append(
            {"name": _FILTERS[step.name], "bar": f"{60 * share:.0f}", "share": f"{share:.1%}", **counts}
        )
    return rows


def _widened(prepared: DatasetSummary) -> str:
    times = prepared.filtered.widened
    if not times:
        return ""
    start = day(prepared.filtered.window_start or 0)
    return f"The window was moved back {times} times, to {start}, for enough items."


def _time_chart(prepared: DatasetSummary) -> Markup:
    labels, counts, first, width = statistics.over_time(prepared)
    marks = [
        ((time - first) / width, f"{name.removesuffix('_start')} from {day(time)}")
        for name, time in prepared.split.boundaries.items()
    ]
    title = "Interactions over time, by split of the target"
    return Markup(column_chart(title, labels, _series(counts), marks=marks, wide=True))


def _history_chart(prepared: DatasetSummary) -> Markup:
    labels, counts = statistics.history_lengths(prepared)
    return Markup(column_chart("Samples by length of history", labels, _series(counts)))


def _counts_chart(codes: np.ndarray, title: str) -> Markup:
    labels, counts = statistics.binned_counts(codes)
    return Markup(column_chart(title, labels, [("", COLORS["train"], counts)]))


def _series(counts: dict[str, list[int]]) -> list[tuple[str, str, list[int]]]:
    return [(name, COLORS[name], values) for name, values in counts.items()]


def _splits(prepared: DatasetSummary) -> list[dict[str, str]]:
    return [
        {
            "split": str(row["split"]),
            **{name: f"{row[name]:,}" for name in ("samples", "users", "items")},
            "first": day(row["first"]),
            "last": day(row["last"]),
            "history": f"{row['history']:.2f}",
        }
        for row in statistics.split_rows(prepared)
    ]


def _sources(prepared: DatasetSummary) -> list[dict[str, Any]]:
    metadata = prepared.metadata
    entries = list(zip(prepared.reviews.files, prepared.reviews.formats, strict=True))
    entries += list(zip(metadata.files, metadata.formats, strict=True)) if metadata else []
    return [
        {
            "uri": file.uri,
            "format": name,
            "lines": f"{file.lines:,}",
            "bytes": f"{file.bytes:,}",
            "sha256": file.sha256,
        }
        for file, name in entries
    ]


def _bad_lines(prepared: DatasetSummary) -> tuple[str, list[str]] | None:
    bads = [prepared.reviews.bad, *([prepared.metadata.bad] if prepared.metadata else [])]
    count = sum(bad.count for bad in bads)
    return (f"{count:,}", [message for bad in bads for message in bad.examples]) if count else None


def _show(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
