"""What a local run shows: its steps and what they say; the whole of KFP's log goes to a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import TextIO

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_STEP = re.compile(r"INFO - (?:Executing task|Task) '([^']+)'(?: finished with status (\w+))?")


class StepLines:
    """Tells a user's lines from KFP's own detail: dumps of inputs, headers, paths of outputs."""

    def __init__(self) -> None:
        """Begin outside any step."""
        self._in_step = False

    def shown(self, line: str) -> str | None:
        """The line as a user sees it, or ``None``. Lines must come in order."""
        plain = _COLOURS.sub("", line).rstrip()
        if step := _STEP.search(plain):
            name, status = step.groups()
            began = "Executing" in plain
            self._in_step = began
            return f"── {name}" if began else None if status in (None, "SUCCESS") else f"── {name}: {status}"
        text = plain.strip()
        # What a step says begins with a word; KFP's dumps begin with brackets and quotes.
        says = (
            self._in_step and plain.startswith("    ") and (text[:1].isalnum() or text[:1] in ("/", "|", "#"))
        )
        return "   " + text if says else None


class _Filter(TextIOBase):
    """Takes everything that is printed, a piece at a time; writes all to ``log`` and some to ``screen``."""

    def __init__(self, log: TextIO, screen: TextIO):
        self._log, self._screen, self._line, self._steps = log, screen, "", StepLines()

    def write(self, text: str) -> int:
        self._log.write(text)
        self._line += text
        *whole, self._line = self._line.split("\n")
        for line in whole:
            if (shown := self._steps.shown(line)) is not None:
                print(shown, file=self._screen, flush=True)
        return len(text)

    def flush(self) -> None:
        self._log.flush()


@contextmanager
def filtered_log(log: Path) -> Iterator[None]:
    """Send what is printed to the file ``log``, and to the screen only what :class:`StepLines` keeps."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream, redirect_stdout(_Filter(stream, sys.stdout)):
        yield
