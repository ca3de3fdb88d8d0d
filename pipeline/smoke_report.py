"""What the acceptance of an installation found: a line a check, and a file to send along with a question."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from latentrec import __version__


@dataclass
class Report:
    """The checks of an installation, in order.

    Attributes:
        host: address of the KFP API.
        versions: of what takes part.
        checks: (outcome, what, detail); the outcome is ``ok``, ``FAILED`` or ``skipped``.
        runs: id of each run, by what it was for.
    """

    host: str
    versions: dict[str, str] = field(default_factory=dict)
    checks: list[tuple[str, str, str]] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.versions |= {
            "latentrec": __version__,
            "kfp": version("kfp"),
            "python": platform.python_version(),
        }

    def check(self, what: str, good: bool, detail: str = "") -> bool:
        """Record and print a check; returns ``good``."""
        self._add("ok" if good else "FAILED", what, detail)
        return good

    def skip(self, what: str, why: str) -> None:
        """Record and print a check that cannot be made here."""
        self._add("skipped", what, why)

    @property
    def good(self) -> bool:
        """Whether nothing failed."""
        return bool(self.checks) and all(outcome != "FAILED" for outcome, _, _ in self.checks)

    def summary(self) -> str:
        """How many checks passed, failed and were skipped."""
        counts = {name: sum(c[0] == name for c in self.checks) for name in ("ok", "FAILED", "skipped")}
        return f"{counts['ok']} ok, {counts['FAILED']} failed, {counts['skipped']} skipped"

    def write(self, path: Path) -> None:
        """Write everything as JSON; no secret is in it."""
        found = {
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "host": self.host,
            "versions": self.versions,
            "runs": self.runs,
            "checks": [{"outcome": a, "check": b, "detail": c} for a, b, c in self.checks],
        }
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

    def _add(self, outcome: str, what: str, detail: str) -> None:
        self.checks.append((outcome, what, detail))
        print(f"{outcome:<8}{what}{f' ({detail})' if detail else ''}", flush=True)
