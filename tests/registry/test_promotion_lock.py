"""One process moves aliases at a time, and a holder that died does not hold them for ever."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from latentrec.registry.promotion_lock import (
    STALE_AFTER_S,
    Lock,
    LockLost,
    is_known_dead,
    lock_root,
    process_identity,
    promotion_lock,
)
from tests.errors import refused


def enter_and_leave(root, number, inside, overlaps):
    with promotion_lock(root, "latentr3", expects="1", version=str(number), wait_seconds=60):
        with inside.get_lock():
            inside.value += 1
            if inside.value > 1:
                overlaps.value += 1
        time.sleep(0.02)
        with inside.get_lock():
            inside.value -= 1


def test_eight_processes_hold_the_lock_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("latentrec.registry.promotion_lock._POLL_S", 0.01)
    context = multiprocessing.get_context("fork")
    inside, overlaps = context.Value("i", 0), context.Value("i", 0)
    arguments = [(str(tmp_path), number, inside, overlaps) for number in range(8)]
    processes = [context.Process(target=enter_and_leave, args=argument) for argument in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    assert overlaps.value == 0


def test_lock_records_what_its_holder_means_to_replace(tmp_path):
    import json

    with promotion_lock(str(tmp_path), "latentr3", expects="3", version="5") as lock:
        content = json.loads(Path(lock.uri).read_text())
    assert (content["expects"], content["version"]) == ("3", "5")
    assert content["holder"]["pid"] == os.getpid()


def test_a_lock_held_by_another_is_an_error_in_the_end(tmp_path):
    with (
        promotion_lock(str(tmp_path), "latentr3", expects=None, version="1"),
        refused("registry.locked", "promotion.lock", str(os.getpid()), "latentr3"),
        promotion_lock(str(tmp_path), "latentr3", expects=None, version="2", wait_seconds=0.1),
    ):
        pass


def test_a_dead_holders_lock_is_taken_over_and_the_holder_finds_out(tmp_path, monkeypatch):
    monkeypatch.setattr("latentrec.registry.promotion_lock._MISSED_S", 0.1)
    with promotion_lock(str(tmp_path), "latentr3", expects=None, version="1") as slow:
        old = time.time() - STALE_AFTER_S - 10
        os.utime(slow.uri, (old, old))
        aged = Lock(slow.uri, slow.version)
        with promotion_lock(str(tmp_path), "latentr3", expects=None, version="2") as fresh:
            fresh.check()
            with pytest.raises(LockLost):
                aged.check()


def hold_and_die(root):
    with promotion_lock(root, "latentr3", expects=None, version="1"):
        os._exit(9)


def test_a_lock_whose_process_is_gone_is_broken_at_once(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=hold_and_die, args=(str(tmp_path),))
    process.start()
    process.join(30)
    assert (tmp_path / "latentr3" / "promotion.lock").exists()
    begin = time.monotonic()
    with promotion_lock(str(tmp_path), "latentr3", wait_seconds=5):
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    ("change", "dead"),
    [
        ({}, False),
        ({"started": "1"}, True),
        ({"pid": 2**22 + 1}, True),
        ({"machine": "another"}, False),
        ({"pid": None}, False),
        ({"pid": 1, "started": None}, False),
    ],
)
def test_a_holder_is_known_dead_only_on_this_machine(change, dead):
    assert is_known_dead(process_identity() | change) is dead


def test_what_is_no_lock_of_ours_is_not_known_dead():
    assert not is_known_dead("host:123")
    assert not is_known_dead(None)


def test_a_lock_that_is_held_for_long_is_not_broken(tmp_path, monkeypatch):
    """A living holder refreshes it; another process waits, however long it takes."""
    monkeypatch.setattr("latentrec.registry.promotion_lock.REFRESH_S", 0.05)
    monkeypatch.setattr("latentrec.registry.promotion_lock.STALE_AFTER_S", 0.4)
    monkeypatch.setattr("latentrec.registry.promotion_lock._POLL_S", 0.02)
    with promotion_lock(str(tmp_path), "latentr3") as held:
        with (
            refused("registry.locked"),
            promotion_lock(str(tmp_path), "latentr3", wait_seconds=1.5),
        ):
            pass
        held.check()


def test_a_living_holders_lock_is_not_broken_by_a_machine_whose_clock_is_ahead(tmp_path, monkeypatch):
    module = "latentrec.registry.promotion_lock"
    monkeypatch.setattr(f"{module}.REFRESH_S", 0.05)
    monkeypatch.setattr(f"{module}._MISSED_S", 0.5)
    monkeypatch.setattr(f"{module}._POLL_S", 0.02)
    with promotion_lock(str(tmp_path), "latentr3") as held:
        ahead = time.time
        monkeypatch.setattr(f"{module}.time.time", lambda: ahead() + 3600)
        with (
            refused("registry.locked", "promotion.lock"),
            promotion_lock(str(tmp_path), "latentr3", wait_seconds=1.5),
        ):
            pass
        held.check()


def test_after_an_error_the_lock_is_free(tmp_path):
    def fail():
        with promotion_lock(str(tmp_path), "latentr3", expects=None, version="1"):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail()
    with promotion_lock(str(tmp_path), "latentr3", expects=None, version="2", wait_seconds=0.1):
        pass


def test_shared_registry_without_a_place_for_locks_is_refused(monkeypatch):
    monkeypatch.delenv("LATENTREC_LOCK_ROOT", raising=False)
    monkeypatch.delenv("LATENTREC_STATUS_ROOT", raising=False)
    with refused("registry.no_lock_location", "LATENTREC_LOCK_ROOT"):
        lock_root("http://mlflow:5000")
    monkeypatch.setenv("LATENTREC_LOCK_ROOT", "gs://bucket/locks")
    assert lock_root("http://mlflow:5000") == "gs://bucket/locks"


def test_lock_in_a_bucket_admits_one_of_eight_at_a_time(gcs_server, monkeypatch):
    monkeypatch.setattr("latentrec.registry.promotion_lock._POLL_S", 0.01)
    inside, overlaps, entered = [], [], []

    def enter(number):
        with promotion_lock("gs://bucket/locks", "latentr3", expects="1", version=str(number)):
            inside.append(number)
            overlaps.extend(inside[1:])
            time.sleep(0.02)
            inside.remove(number)
            entered.append(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(entered) == list(range(8))
    assert overlaps == []


def test_batch_scores_into_a_bucket(gcs_server, register, tmp_path):
    import pyarrow.parquet as pq

    from latentrec.steps.batch_scoring import batch_score
    from latentrec.storage import store_for
    from tests.fixtures.shop import decision

    model = register(decision()).model
    users = tmp_path / "users.jsonl"
    users.write_text('{"user_key": "u1", "history": ["B0003"]}\n')
    store_for("gs://bucket/users.jsonl").upload_file(users, "gs://bucket/users.jsonl")
    result = batch_score(model=model.uri, users="gs://bucket/users.jsonl", output="gs://bucket/serving")
    assert result.uri == "gs://bucket/serving/recommendations.parquet"
    store_for(result.uri).download_file(result.uri, tmp_path / "copy.parquet")
    assert pq.read_table(tmp_path / "copy.parquet")["user_key"].to_pylist() == ["u1"]
