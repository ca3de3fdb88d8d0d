"""Progress in a log: how far, how fast, how long still; after a resume only this attempt counts."""

import sys

import pytest

from latentrec.core.progress import progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(sys.modules["latentrec.core.progress"], "time", made)
    return made


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level("INFO", "latentrec")


def logged(caplog) -> str:
    text = "\n".join(record.getMessage() for record in caplog.records)
    caplog.clear()
    return text


def test_a_resumed_attempt_tells_its_own_speed_and_time_left(clock, caplog):
    with progress("sft", 1000, "steps", initial=800) as bar:
        clock.now += 20
        bar.update(20)
        assert "sft: 820 of 1,000 (82%) steps, 1.0 steps/s, 03:00 left" in logged(caplog)


def test_a_first_attempt_counts_everything(clock, caplog):
    with progress("sft", 1000, "steps") as bar:
        clock.now += 20
        bar.update(200)
        assert "200 of 1,000 (20%) steps, 10.0 steps/s, 01:20 left" in logged(caplog)


def test_without_a_total_no_time_left_is_told(clock, caplog):
    with progress("read", unit="lines") as bar:
        clock.now += 10
        bar.update(50)
        assert logged(caplog).strip() == "read: 50 lines, 5.0 lines/s"


def test_nothing_done_yet_is_no_division_by_zero(clock, caplog):
    with progress("sft", 10, "steps", initial=5) as bar:
        clock.now += 11
        bar.update(0)
        assert "0.0 steps/s" in logged(caplog)
