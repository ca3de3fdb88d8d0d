"""What a local run shows: its steps and what they say; the whole of KFP's log goes to a file."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import TextIO

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b")
_TASK = re.compile(r"INFO - (?:Executing task|Task) '([^']+)'(?: finished with status (\w+))?")
_FAILED = re.compile(r"ERROR - Task '([^']+)' finished with status (\w+)")


class StepLines:
    """Tells a user's lines from KFP's own detail: dumps of inputs, headers, paths of outputs."""

    def __init__(self) -> None:
        """Begin outside any step."""
        self._in_step = False
        self._began = 0.0
        self._heading: str | None = None

    def announce(self, step: str, number: int, total: int) -> None:
        """Name the task that begins next as the pipeline does, and say which of how many it is."""
        self._heading = f"{number} of {total} · {step}"

    def shown(self, line: str) -> str | None:
        """The line as a user sees it, or ``None``. Lines must come in order."""
        plain = _COLORS.sub("", line).rstrip()
        if task := _FAILED.search(plain) or _TASK.search(plain):
            return self._boundary(task[1], task[2], "Executing" in plain)
        text = plain.strip()
        # What a step says begins with a word; KFP's dumps begin with brackets and quotes.
        says = (
            self._in_step and plain.startswith("    ") and (text[:1].isalnum() or text[:1] in ("/", "|", "#"))
        )
        return "   " + _HASH.sub(r"\1…", text) if says else None

    def _boundary(self, task: str, status: str | None, begins: bool) -> str | None:
        self._in_step = begins
        if begins:
            heading, self._heading, self._began = self._heading or task, None, time.monotonic()
            return f"── {heading}"
        if status is None:
            return None
        seconds = time.monotonic() - self._began
        return f"   {seconds:.0f} s" if status == "SUCCESS" else f"   FAILED after {seconds:.0f} s"


class _Filter(TextIOBase):
    """Takes everything that is printed, a piece at a time; writes all to ``log`` and some to ``screen``."""

    def __init__(self, log: TextIO, screen: TextIO, steps: StepLines):
        self._log, self._screen, self._line, self._steps = log, screen, "", steps

    def write(self, text: str) -> int:
        self._line += text
        *whole, self._line = self._line.split("\n")
        for line in whole:
            self._log.write(_COLORS.sub("", line) + "\n")
            if (shown := self._steps.shown(line)) is not None:
                print(shown, file=self._screen, flush=True)
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
