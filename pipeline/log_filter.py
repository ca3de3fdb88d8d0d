"""What a local run shows: its steps and what they say; the whole of KFP's log goes to a file."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import TextIOBase
from pathlib import Path
from typing import TextIO

from latentrec.core.redact import redact

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")
_TASK = re.compile(r"INFO - (?:Executing task|Task) '([^']+)'(?: finished with status (\w+))?")
_FAILED = re.compile(r"ERROR - Task '([^']+)' finished with status (\w+)")


@dataclass
class _Step:
    """The step that one thread prints for."""

    name: str = ""
    heading: str | None = None
    began: float = 0.0
    inside: bool = False


class StepLines:
    """Separates a user's lines from KFP's own detail: dumps of inputs, headers, paths of outputs.

    Steps that run side by side print from threads of their own; a line that stands below another step's
    heading names its step.
    """

    def __init__(self) -> None:
        """Begin outside any step."""
        self._steps = threading.local()
        self._last_heading = ""

    def announce(self, step: str, number: int, total: int) -> None:
        """Name the task that begins next as the pipeline does, and say which of how many it is."""
        self._steps.current = _Step(step, f"{number} of {total} · {step}")

    def shown(self, line: str) -> str | None:
        """The line as a user sees it, or ``None``. Lines of a thread must come in order."""
        plain = _COLORS.sub("", line).rstrip()
        if task := _FAILED.search(plain) or _TASK.search(plain):
            return self._boundary(task[1], task[2], "Executing" in plain)
        text = plain.strip()
        # What a step says begins with a word; KFP's dumps begin with brackets and quotes.
        says = plain.startswith("    ") and (text[:1].isalnum() or text[:1] in ("/", "|", "#"))
        return self._named(_HASH.sub(r"\1…", text)) if says and self._step.inside else None

    @property
    def _step(self) -> _Step:
        if not hasattr(self._steps, "current"):
            self._steps.current = _Step()
        return self._steps.current

    def _named(self, text: str) -> str:
        name = self._step.name
        elsewhere = name != self._last_heading and not text.startswith(f"{name}: ")
        return f"   {name}: {text}" if elsewhere else f"   {text}"

    def _boundary(self, task: str, status: str | None, begins: bool) -> str | None:
        step = self._step
        step.inside = begins
        if begins:
            heading = step.heading
            if heading is None:  # nothing has announced it
                step.name = heading = task
            step.heading, step.began, self._last_heading = None, time.monotonic(), step.name
            return f"── {heading}"
        if status is None:
            return None
        seconds = f"{time.monotonic() - step.began:.0f} s"
        return self._named(seconds if status == "SUCCESS" else f"FAILED after {seconds}")


class _Filter(TextIOBase):
    """Takes everything that is printed, a piece at a time; writes all to ``log`` and some to ``screen``."""

    def __init__(self, log: TextIO, screen: TextIO, steps: StepLines):
        self._log, self._screen, self._steps = log, screen, steps
        self._lines: dict[int, str] = {}
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            thread = threading.get_ident()
            *whole, self._lines[thread] = (self._lines.get(thread, "") + text).split("\n")
            for line in map(redact, whole):  # KFP prints every step's parameters, addresses among them
                self._log.write(_COLORS.sub("", line) + "\n")
                if (shown := self._steps.shown(line)) is not None:
                    self._screen.write(shown + "\n")  # KFP exchanges print, which would come back here
                    self._screen.flush()
        return len(text)

    def flush(self) -> None:
        self._log.flush()


@contextmanager
def filtered_log(log: Path) -> Iterator[StepLines]:
    """Send what is printed to the file ``log``, and to the screen only what :class:`StepLines` keeps."""
    log.parent.mkdir(parents=True, exist_ok=True)
    steps = StepLines()
    with (
        log.open("w", encoding="utf-8", buffering=1) as stream,
        redirect_stdout(_Filter(stream, sys.stdout, steps)),
    ):
        yield steps
