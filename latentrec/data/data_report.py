"""The data report: one self-contained HTML file that says what was done to the data."""

from __future__ import annotations

import html
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import pyarrow.parquet as pq

from latentrec.data import statistics
from latentrec.data.charts import columns_chart
from latentrec.data.dataset_summary import DatasetSummary, day
from latentrec.data.validation import Check

COLOURS = {"first events": "#b9c0c9", "train": "#3b6ea5", "valid": "#e0a030", "test": "#b5462f"}
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
    titles = items["title"].to_pylist()
    template = Template(files("latentrec.data").joinpath("report_page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        tiles=_tiles(prepared),
        checks=_checks(checks),
        funnel=_funnel(prepared),
        time=_time_chart(prepared),
        splits=_splits(prepared),
        histories=_history_chart(prepared),
        users=_counts_chart(prepared.interactions.user, "Users by number of events"),
        items=_counts_chart(prepared.interactions.item, "Items by number of events"),
        shares=_table(statistics.share_figures(prepared, items["title_id"].to_numpy())),
        examples=_examples(statistics.examples(prepared, titles)),
        sources=_sources(prepared),
        bad_lines=_bad_lines(prepared),
        settings=_settings(prepared),
    )
    (directory / "report.html").write_text(page, encoding="utf-8")


def _tiles(prepared: DatasetSummary) -> str:
    data, split = prepared.interactions, prepared.split
    span = f"{day(int(data.time.min()))} to {day(int(data.time.max()))}"
    figures = (
        ("interactions", f"{len(data):,}"),
        ("users", f"{len(data.user_keys):,}"),
        ("items", f"{len(data.item_keys):,}"),
        ("samples", " / ".join(f"{len(part):,}" for part in (split.train, split.valid, split.test))),
        ("period (UTC)", span),
    )
    return "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in figures)


def _checks(checks: list[Check]) -> str:
    ordered = sorted(checks, key=lambda check: check.ok)
    rows = ""
    for check in ordered:
        state = "ok" if check.ok else check.level
        rows += f'<tr><td><span class="badge {state}">{state}</span></td>'
        rows += f"<td>{_text(check.name)}</td><td>{_text(check.detail)}</td></tr>"
    return f"<table><tr><th></th><th>check</th><th>figures</th></tr>{rows}</table>"


def _funnel(prepared: DatasetSummary) -> str:
    steps = prepared.filtered.funnel
    rows = ""
    for step in steps:
        share = step.interactions / max(steps[0].interactions, 1)
        rows += f"<tr><td>{_FILTERS[step.name]}</td>"
        rows += "".join(
            f"<td class=n>{count:,}</td>" for count in (step.interactions, step.users, step.items)
        )
        rows += f'<td><div class="bar" style="width:{share * 240:.0f}px"></div> {share:.1%}</td></tr>'
    head = (
        "<tr><th>after</th><th>interactions</th><th>users</th><th>items</th><th>of the events read</th></tr>"
    )
    widened = prepared.filtered.widened
    note = ""
    if widened:
        start = prepared.filtered.window_start
        note = f"<p>The window was moved back {widened} times, to {day(start or 0)}, for enough items.</p>"
    return f"<table>{head}{rows}</table>{note}"


def _time_chart(prepared: DatasetSummary) -> str:
    labels, counts, first, width = statistics.over_time(prepared)
    marks = [
        ((time - first) / width, f"{name.removesuffix('_start')} from {day(time)}")
        for name, time in prepared.split.boundaries.items()
    ]
    series = [(name, COLOURS[name], values) for name, values in counts.items()]
    return columns_chart(labels, series, title="Interactions over time, by split of the target", marks=marks)


def _splits(prepared: DatasetSummary) -> str:
    head = "".join(
        f"<th>{name}</th>"
        for name in ("split", "samples", "users", "items", "first target", "last target", "mean history")
    )
    rows = ""
    for row in statistics.split_rows(prepared):
        rows += f"<tr><td>{row['split']}</td>"
        rows += "".join(f"<td class=n>{row[name]:,}</td>" for name in ("samples", "users", "items"))
        rows += f"<td>{day(row['first'])}</td><td>{day(row['last'])}</td>"
        rows += f"<td class=n>{row['history']:.2f}</td></tr>"
    return f"<table><tr>{head}</tr>{rows}</table>"


def _history_chart(prepared: DatasetSummary) -> str:
    labels, counts = statistics.history_lengths(prepared)
    series = [(name, COLOURS[name], values) for name, values in counts.items()]
    return columns_chart(labels, series, title="Samples by length of history", width=480)


def _counts_chart(codes: np.ndarray, title: str) -> str:
    labels, counts = statistics.binned_counts(codes)
    return columns_chart(labels, [("", COLOURS["train"], counts)], title=title, width=480)


def _examples(found: list[tuple[str, list[str], str]]) -> str:
    parts = []
    for user, history, target in found:
        listing = "".join(f"<li>{_text(title)}</li>" for title in history)
        parts.append(
            f'<div class="sample"><span>user {_text(user)}</span><ol>{listing}</ol>'
            f"<b>→ {_text(target)}</b></div>"
        )
    return "".join(parts)


def _sources(prepared: DatasetSummary) -> str:
    metadata = prepared.metadata
    entries = [
        (file, f.name) for file, f in zip(prepared.reviews.files, prepared.reviews.formats, strict=True)
    ]
    entries += list(zip(metadata.files, metadata.formats, strict=True)) if metadata else []
    rows = "".join(
        f"<tr><td>{_text(file.uri)}</td><td>{_text(name)}</td><td class=n>{file.lines:,}</td>"
        f"<td class=n>{file.bytes:,}</td><td><code>{file.sha256}</code></td></tr>"
        for file, name in entries
    )
    head = "<tr><th>file</th><th>format</th><th>lines</th><th>bytes</th><th>sha256</th></tr>"
    return f"<table>{head}{rows}</table>"


def _bad_lines(prepared: DatasetSummary) -> str:
    bads = [prepared.reviews.bad, *([prepared.metadata.bad] if prepared.metadata else [])]
    count = sum(bad.count for bad in bads)
    if not count:
        return "<p>Every line could be read.</p>"
    listing = "".join(f"<li>{_text(message)}</li>" for bad in bads for message in bad.examples)
    return f"<p>{count:,} lines could not be read and were dropped, such as:</p><ul>{listing}</ul>"


def _settings(prepared: DatasetSummary) -> str:
    rows = [
        (name, _show(getattr(prepared.config, name)), field.description or "")
        for name, field in type(prepared.config).model_fields.items()
    ]
    return _table(rows)


def _show(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _table(rows: list[tuple[str, str]] | list[tuple[str, str, str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{body}</table>"


def _text(value: str) -> str:
    return html.escape(value)
