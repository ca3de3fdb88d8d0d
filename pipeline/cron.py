"""Cron expressions of six fields as KFP reads them, in UTC: checked here, and when they come next."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from latentrec.core import UserError

DEFAULT_CRON = "0 0 3 * * 1"
"""Mondays at 03:00 UTC: second, minute, hour, day of month, month, day of week."""

_RANGES = (
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 6),
)
_NAMES = {
    "month": ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    "day of week": ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
}
_LONGEST_WAIT = timedelta(days=8 * 366)
"""February 29th comes after eight years at the latest."""


def check_cron(text: str) -> str:
    """A cron expression of six fields, as KFP reads it; returned with single spaces.

    Raises:
        UserError: naming the field that is wrong. Five fields, which most other programs take, would shift
            every field by one.
    """
    fields = text.split()
    if len(fields) != 6:
        hint = f"; for the usual five fields write '0 {text.strip()}'" if len(fields) == 5 else ""
        raise UserError(
            f"CRON is {text!r}, which has {len(fields)} fields, expected six: second minute hour "
            f"day-of-month month day-of-week, for example '{DEFAULT_CRON}'{hint}",
            code="schedule.bad_cron",
        )
    for value, (name, low, high) in zip(fields, _RANGES, strict=True):
        _values(text, name, value, low, high)
    return " ".join(fields)


def next_time(text: str, after: datetime) -> datetime | None:
    """The first time after ``after`` (UTC) that an expression names; ``None`` where there is none.

    Raises:
        UserError: as of :func:`check_cron`.
    """
    fields = check_cron(text).split()
    seconds, minutes, hours, days, months, weekdays = (
        _values(text, name, value, low, high)
        for value, (name, low, high) in zip(fields, _RANGES, strict=True)
    )
    # As in crontabs: where both kinds of day are given, either will do; a "*" leaves it to the other one.
    either = not fields[3].startswith(("*", "?")) and not fields[5].startswith(("*", "?"))

    def is_day(day: datetime) -> bool:
        in_month, in_week = day.day in days, day.isoweekday() % 7 in weekdays
        return day.month in months and (in_month or in_week if either else in_month and in_week)

    start = after.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    day = start.replace(hour=0, minute=0, second=0)
    while day - start < _LONGEST_WAIT:
        if is_day(day):
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    for second in sorted(seconds):
                        found = day.replace(hour=hour, minute=minute, second=second)
                        if found >= start:
                            return found
        day += timedelta(days=1)
    return None


def _values(text: str, name: str, field: str, low: int, high: int) -> set[int]:
    """The numbers that one field names."""
    found: set[int] = set()
    for part in field.split(","):
        found |= _part_values(text, name, part, low, high)
    return found


def _part_values(text: str, name: str, part: str, low: int, high: int) -> set[int]:
    problem = UserError(
        f"CRON is {text!r}: {name} is {part!r}, expected *, numbers from {low} to {high}, ranges, "
        "lists or steps",
        code="schedule.bad_cron",
    )
    body, slash, step = part.partition("/")
    if slash and not (step.isdigit() and int(step) > 0):
        raise problem
    if body in ("*", "?"):
        if body == "?" and name not in ("day of month", "day of week"):
            raise problem
        first, last = low, high
    else:
        words = {word: index + low for index, word in enumerate(_NAMES.get(name, []))}
        ends = [words.get(end.upper(), end) for end in body.split("-")]
        if len(ends) > 2 or not all(re.fullmatch(r"\d+", str(end)) for end in ends):
            raise problem
        numbers = [int(end) for end in ends]
        if not all(low <= number <= high for number in numbers) or numbers != sorted(numbers):
            raise problem
        # "N/step" means from N to the end of the field, "N" alone just N.
        first, last = numbers[0], (numbers[1] if len(numbers) == 2 else high if slash else numbers[0])
    return set(range(first, last + 1, int(step) if slash else 1))
