"""What the slow tests reached, kept in ``docs/slow-tests.md``: one row a test, rewritten by each run."""

from __future__ import annotations

import fcntl
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "slow-tests.md"
_HEAD = (
    "# Slow tests\n\nFigures that `make test-slow` reached; each run rewrites its rows.\n\n"
    "| test | figure | day (UTC) |\n|---|---|---|\n"
)


def record_figure(test: str, figure: str, page: Path = PAGE) -> None:
    """Put one row into the page; rows of other tests stay."""
    page.parent.mkdir(parents=True, exist_ok=True)
    with page.open("a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        rows = {
            line.split("|")[1].strip(): line
            for line in stream.read().splitlines()
            if line.startswith("| ") and not line.startswith("| test ")
        }
        rows[test] = f"| {test} | {figure} | {datetime.now(UTC):%Y-%m-%d} |"
        stream.truncate(0)
        stream.write(_HEAD + "\n".join(rows[name] for name in sorted(rows)) + "\n")
