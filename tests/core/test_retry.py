"""The one policy for repeating requests: how many tries, for how long, and what Retry-After is worth."""

import time
from email.utils import formatdate

import pytest

from latentrec.core.retry import Retries


def test_number_of_tries_counts_the_first():
    retries = Retries(attempts=3, first_pause=0.0)
    assert [retries.wait() for _ in range(3)] == [True, True, False]


def test_one_try_is_not_repeated():
    assert not Retries(attempts=1).wait()


def test_pauses_double_up_to_the_longest(monkeypatch):
    pauses = []
    monkeypatch.setattr("latentrec.core.retry.time.sleep", pauses.append)
    retries = Retries(first_pause=1.0, longest_pause=4.0)
    for _ in range(5):
        assert retries.wait()
    for pause, longest in zip(pauses, (1.0, 2.0, 4.0, 4.0, 4.0), strict=True):
        assert longest / 2 <= pause <= longest


def test_clients_do_not_come_back_at_the_same_moment(monkeypatch):
    pauses = []
    monkeypatch.setattr("latentrec.core.retry.time.sleep", pauses.append)
    for _ in range(20):
        Retries(first_pause=1.0).wait()
    assert len(set(pauses)) > 1


def test_time_runs_from_the_last_progress(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("latentrec.core.retry.time.monotonic", lambda: now[0])
    monkeypatch.setattr("latentrec.core.retry.time.sleep", lambda _: None)
    retries = Retries(seconds=10.0)
    now[0] = 109.0
    assert retries.wait()
    retries.progressed()
    now[0] = 118.0
    assert retries.wait()
    now[0] = 119.5
    assert not retries.wait()
    assert retries.bound() == 10.0


def test_a_bound_from_the_first_try_is_not_moved_by_progress(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("latentrec.core.retry.time.monotonic", lambda: now[0])
    retries = Retries(seconds=100.0)
    now[0] = 4.0
    retries.progressed()
    assert not retries.wait(within=3.0)
    assert retries.bound(3.0) == 3.0


def test_a_pause_that_does_not_fit_is_not_begun():
    begin = time.monotonic()
    assert not Retries(seconds=1.0).wait(20.0)
    assert time.monotonic() - begin < 0.5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.4", 0.4),
        ("3600", 30.0),
        ("-3", 0.0),
        ("nan", 0.0),
        ("inf", 30.0),
        ("soon", None),
        (None, None),
    ],
)
def test_retry_after_in_seconds(header, seconds):
    assert Retries(longest_asked=30.0).asked_pause(header) == seconds


def test_retry_after_as_a_date():
    asked = Retries(longest_asked=30.0).asked_pause(formatdate(time.time() + 10, usegmt=True))
    assert asked is not None
    assert 8.0 <= asked <= 10.0
