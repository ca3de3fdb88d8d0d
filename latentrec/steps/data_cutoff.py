"""The day at which a run's data ends, given as a day, a time, or as the schedule's own time."""

from __future__ import annotations

from datetime import datetime

from latentrec.core import UserError

SCHEDULED = "scheduled"
"""The value of ``data_cutoff`` that stands for the time at which a schedule starts its run."""


def cutoff_day(value: str, scheduled_time: str = "") -> str:
    """The UTC day of a cut-off: a day, or a time (RFC 3339), or ``scheduled`` for the schedule's own time.

    Args:
        value: as given; empty: none.
        scheduled_time: when KFP was to start the run; an installation without that placeholder
            leaves it as it is.

    Raises:
        UserError: none of these.
    """
    if not value:
        return ""
    if value == SCHEDULED and (not scheduled_time or scheduled_time.startswith("{{")):
        raise UserError(
            f"data_cutoff is {SCHEDULED}, and KFP does not say when this run was scheduled for (found "
            f"{scheduled_time!r}; KFP 2.16 or later does); give a day, YYYY-MM-DD",
            code="config.no_scheduled_time",
        )
    try:
        given = scheduled_time if value == SCHEDULED else str(value)
        return datetime.fromisoformat(given).date().isoformat()
    except ValueError:
        raise UserError(
            f"data_cutoff is {value!r}, expected YYYY-MM-DD, a time like 2026-01-05T03:00:00Z, or "
            f"{SCHEDULED} (the time that a schedule starts its run)",
            code="config.bad_value",
        ) from None
