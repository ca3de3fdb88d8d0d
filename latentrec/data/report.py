"""The data report: one self-contained HTML file that says what was done to the data."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from latentrec.data.config import DataPrepConfig


def write_report(
    directory: Path, config: DataPrepConfig, counts: dict[str, Any], extra: dict[str, Any]
) -> None:
    """Write ``report.html``: sources, funnel, splits, checks."""
    funnel = "".join(
        _row(step["name"], *(f"{step[key]:,}" for key in ("interactions", "users", "items")))
        for step in extra["funnel"]
    )
    checks = "".join(
        _row(check["name"], "holds" if check["ok"] else check["level"], check["detail"])
        for check in extra["checks"]
    )
    splits = "".join(_row(name, f"{counts[name]:,}") for name in ("train", "valid", "test"))
    sources = "".join(_row(entry["uri"], f"{entry['bytes']:,}", entry["sha256"]) for entry in extra["source"])
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Data report</title></head><body>"
        f"<h1>Data report</h1><h2>Sources</h2><table>{sources}</table>"
        f"<h2>Funnel</h2><table>{_row('step', 'interactions', 'users', 'items')}{funnel}</table>"
        f"<h2>Samples</h2><table>{splits}</table><h2>Checks</h2><table>{checks}</table></body></html>"
    )
    (directory / "report.html").write_text(page, encoding="utf-8")


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"
