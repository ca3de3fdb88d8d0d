"""Which texts are a schedule, and when it comes next, by the rules of the cron library that KFP uses."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.cron import check_cron, next_time
from tests.errors import refused

NOW = datetime(2026, 11, 27, 19, 15, 30, tzinfo=UTC)  # a Friday


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 3 * * 1", "2026-11-30T03:00:00"),
        ("0 * * * * *", "2026-11-27T19:16:00"),
        ("30 15 19 * * *", "2026-11-28T19:15:30"),
        ("*/20 * * * * *", "2026-11-27T19:15:40"),
        ("0 0 */6 * * *", "2026-11-28T00:00:00"),
        ("0 30 4 * * MON-FRI", "2026-11-30T04:30:00"),
        ("0 0 0 1 * ?", "2026-12-01T00:00:00"),
        ("0 0 0 1 * SUN", "2026-11-29T00:00:00"),
        ("0 0 12 1,15 JAN,JUL *", "2027-01-01T12:00:00"),
        ("0 0 0 29 2 *", "2028-02-29T00:00:00"),
        ("0 5/10 20 * * *", "2026-11-27T20:05:00"),
    ],
)
def test_the_next_time(expression, expected):
    assert next_time(expression, NOW).isoformat() == expected + "+00:00"


def test_a_day_that_never_comes():
    assert next_time("0 0 0 31 2 *", NOW) is None


@pytest.mark.parametrize("text", ["0 0 3 * * 1", "*/30 0-15 3,4 ? JAN-MAR MON", "0 0 0 1 1 ?"])
def test_six_fields_are_a_schedule(text):
    assert check_cron(f" {text} ") == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("0 3 * * 1", ("5 fields", "'0 0 3 * * 1'")),
        ("", ("0 fields",)),
        ("0 0 24 * * 1", ("hour", "'24'")),
        ("0 0 3 * * 7", ("day of week", "'7'")),
        ("0 0 3 * 0 1", ("month", "'0'")),
        ("0 0 5-3 * * 1", ("hour", "'5-3'")),
        ("0 */0 3 * * 1", ("minute", "'*/0'")),
        ("? 0 3 * * 1", ("second", "'?'")),
        ("0 0 3 * * LUN", ("day of week", "'LUN'")),
    ],
)
def test_a_wrong_schedule_is_refused_here(text, named):
    with refused("schedule.bad_cron", *named):
        check_cron(text)
