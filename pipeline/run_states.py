"""A run's tasks as the KFP API returns them: names with attempts, entries without any, states that lag."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_CACHED = ("SKIPPED", "CACHED")
_RAN = ("PENDING", "RUNNING")
_ATTEMPT = re.compile(r"^(?P<name>.*)\((?P<attempt>\d+)\)$")


@dataclass(frozen=True)
class TaskState:
    """One task of a run, over all its attempts.

    Attributes:
        state: ``SUCCEEDED``, ``FAILED``, … or empty where the API gives none (omitted, or not yet started).
        cached: whether it was served from the cache instead of running.
        attempts: how often it was started.
    """

    state: str
    cached: bool
    attempts: int


def task_states(run: Any) -> dict[str, TaskState]:
    """State of every task of a run, by the task's own name (``data-prep``); drivers are left out.

    The API lists one entry for a task and one for each of its attempts (``sft-2(0)``), names the containers
    of all tasks ``executor``, and has entries without a name. A task that came from the cache succeeded
    without ever having been pending or running, in no time; older backends say ``SKIPPED``.

    Args:
        run: of the client's ``get_run``.
    """
    details = (run.run_details.task_details if run.run_details else None) or []
    whole: dict[str, Any] = {}
    attempts: dict[str, int] = {}
    for entry in details:
        name = (entry.display_name or "").strip()
        attempt = _ATTEMPT.match(name)
        if attempt:
            base = _plain(attempt["name"])
            attempts[base] = max(attempts.get(base, 0), int(attempt["attempt"]) + 1)
        elif name and not name.endswith("-driver") and name != "executor":
            whole[_plain(name)] = entry
    return {
        name: TaskState(entry.state or "", _is_cached(entry), attempts.get(name, 1))
        for name, entry in whole.items()
    }


def is_final(run: Any) -> bool:
    """Whether a run has ended."""
    return (run.state or "") in FINAL


def _plain(name: str) -> str:
    """``Prepare data`` and ``prepare-data`` are the same task to us."""
    return name.lower().replace(" ", "-")


def _is_cached(entry: Any) -> bool:
    if entry.state in _CACHED:
        return True
    seen = {change.state for change in entry.state_history or []}
    took_time = entry.start_time is None or entry.end_time is None or entry.end_time > entry.start_time
    return entry.state == "SUCCEEDED" and bool(seen) and not seen & set(_RAN) and not took_time
