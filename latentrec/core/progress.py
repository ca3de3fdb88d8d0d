"""Progress of long work: a bar on a terminal, one line every few seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

LOG_INTERVAL_S = 10.0
_logger = logging.getLogger(__name__)


class _LogLines:
    """Stands in for a progress bar where standard error is not a terminal."""

    def __init__(self, description: str, total: float | None, unit: str, initial: float = 0.0):
        self._description, self._total, self._unit = description, total, unit
        self._done = self._initial = initial
        self._start = self._last = time.monotonic()
        self._note = ""

    def update(self, amount: float = 1) -> None:
        self._done += amount
        if time.monotonic() - self._last >= LOG_INTERVAL_S:
            self._last = time.monotonic()
            self._log()

    def set_postfix_str(self, note: str, refresh: bool = True) -> None:
        self._note = note

    def close(self) -> None:
        if time.monotonic() - self._start >= LOG_INTERVAL_S:
            self._log()

    def _log(self) -> None:
        seconds = max(time.monotonic() - self._start, 1e-9)
        share = f" of {self._total:,.0f} ({self._done / self._total:.0%})" if self._total else ""
        rate = (self._done - self._initial) / seconds
        left = (
            f", {tqdm.format_interval((self._total - self._done) / rate)} left"
            if self._total and rate
            else ""
        )
        _logger.info(
            "%s",
            f"{self._description}: {self._done:,.0f}{share} {self._unit}, "
            f"{rate:,.1f} {self._unit}/s{left} {self._note}".rstrip(),
        )


@contextmanager
def progress(
    description: str,
    total: float | None = None,
    unit: str = "it",
    *,
    initial: float = 0.0,
    shown: bool = True,
) -> Iterator[Any]:
    """Yield an object with ``update(amount)`` and ``set_postfix_str(note)`` that shows how far the work is.

    Args:
        description: what is done.
        total: the amount expected, in ``unit``; ``None`` when unknown.
        unit: of the amounts.
        initial: what an earlier attempt has done; rate and time left count only what this one does.
        shown: ``False`` for all but one of the processes that do the same work.
    """
    if sys.stderr.isatty() or not shown:
        scale = unit == "B"
        bar: Any = tqdm(
            total=total,
            desc=description,
            unit=unit,
            unit_scale=scale,
            dynamic_ncols=True,
            initial=initial,  # type: ignore[arg-type]
            disable=not shown,
        )
    else:
        bar = _LogLines(description, total, unit, initial)
    try:
        yield bar
    finally:
        bar.close()
