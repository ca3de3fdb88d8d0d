"""One policy for repeating what may fail for a while: which faults pass, how long to pause, when to stop.

The counting and the parsing of ``Retry-After`` are urllib3's :class:`~urllib3.util.Retry`. The loop stays
with the caller, because what is repeated is more than one exchange of HTTP: a download goes on where it
stopped, a signature is made again, an answer that came well but says nothing is asked for once more.
"""

from __future__ import annotations

import random
import time

from urllib3.exceptions import InvalidHeader, MaxRetryError
from urllib3.util import Retry

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of HTTP that another try may change."""


class _Policy(Retry):
    """urllib3's, with pauses that differ between clients, so that they do not come back at once."""

    def get_backoff_time(self) -> float:
        """``backoff_factor`` before the first retry, doubled up to ``backoff_max``; half of it random.

        urllib3's own first retry follows at once, and its jitter does not grow with the pause.
        """
        doubled = min(max(len(self.history) - 1, 0), 64)
        return random.uniform(0.5, 1.0) * min(self.backoff_max, self.backoff_factor * 2**doubled)


class Retries:
    """The tries that one request has, bounded by their number, by time, or by both.

    Args:
        attempts: tries in all, the first included; ``None`` for any number.
        seconds: from now, or from the last progress, to the last try; ``None`` for any time.
        first_pause: seconds before the first retry; doubled each time.
        longest_pause: seconds that doubling ends at.
        longest_asked: seconds that a server's ``Retry-After`` is followed for at most.
    """

    def __init__(
        self,
        *,
        attempts: int | None = None,
        seconds: float | None = None,
        first_pause: float = 0.2,
        longest_pause: float = 8.0,
        longest_asked: float = 30.0,
    ):
        total = None if attempts is None else attempts - 1
        self._fresh = _Policy(total=total, backoff_factor=first_pause, backoff_max=longest_pause)
        self._policy = self._fresh
        self._seconds, self._longest_asked = seconds, longest_asked
        self._begin = self._since = time.monotonic()

    def progressed(self) -> None:
        """Something came through: time and pauses start over."""
        self._since, self._policy = time.monotonic(), self._fresh

    def asked_pause(self, retry_after: str | None) -> float | None:
        """Seconds that a ``Retry-After`` (a number, or a date) asks for; ``None`` where it says nothing."""
        if retry_after is None:
            return None
        try:
            seconds = float(retry_after)
        except ValueError:
            try:
                seconds = self._policy.parse_retry_after(retry_after)
            except (InvalidHeader, ValueError, OverflowError):
                return None
        return min(self._longest_asked, max(0.0, seconds))

    def wait(self, asked: float | None = None, *, within: float | None = None) -> bool:
        """Pause before the next try.

        Args:
            asked: seconds that the server asked for, in place of a shorter pause of ours.
            within: a bound in seconds from the first try, whatever progress was made.

        Returns:
            False, at once, when there is no next try.
        """
        try:
            self._policy = self._policy.increment()
        except MaxRetryError:
            return False
        pause = max(self._policy.get_backoff_time(), asked or 0.0)
        if time.monotonic() + pause > self._end(within):
            return False
        time.sleep(pause)
        return True

    def bound(self, within: float | None = None) -> float:
        """Seconds that were allowed since the first try, or since progress if that is less; for messages."""
        since_begin = max(self._end(within) - self._begin, 0.0)
        return since_begin if self._seconds is None else min(self._seconds, since_begin)

    def _end(self, within: float | None) -> float:
        end = float("inf") if self._seconds is None else self._since + self._seconds
        return end if within is None else min(end, self._begin + within)
