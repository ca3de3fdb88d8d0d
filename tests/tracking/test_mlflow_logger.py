"""The metric_logger while the tracking server is away, slow, full or picky; deliveries are scripted."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from queue import Queue

import pytest

from latentrec.tracking import unsent
from latentrec.tracking.delivery import MetricsRejected
from latentrec.tracking.mlflow_logger import AWAY, BACK, MlflowMetricLogger
from latentrec.tracking.unsent import DiskQueue


class ScriptedDelivery:
    """Stands in for the server: `away` fails every call, `refuse` names records that it never takes."""

    def __init__(self):
        self.away = threading.Event()
        self.refuse = lambda record: False
        self.break_on = lambda record: False
        self.received: list[dict] = []
        self.run_id = None
        self.opened = threading.Event()

    def open(self):
        if self.away.is_set():
            raise ConnectionError("connection refused")
        self.run_id = "run"
        self.opened.set()
        return "run"

    def is_up(self):
        return not self.away.is_set()

    def send(self, records):
        self.open()
        if any(map(self.refuse, records)):
            raise MetricsRejected("INVALID_PARAMETER_VALUE: no")
        if any(map(self.break_on, records)):
            raise RuntimeError("500 Internal Server Error")
        self.received += records

    def points(self):
        return [(r["step"], r["values"]["loss"]) for r in self.received if r["kind"] == "metrics"]


@pytest.fixture
def delivery():
    return ScriptedDelivery()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("latentrec.tracking.mlflow_logger._POLL_S", 0.02)
    monkeypatch.setattr("latentrec.tracking.mlflow_logger._MAX_BACKOFF_S", 0.05)


def sink_on(delivery, tmp_path, max_bytes=1_000_000):
    return MlflowMetricLogger(delivery, tmp_path / "spool", max_bytes)


def close(metric_logger, seconds=5.0):
    kept = []
    metric_logger.close("FINISHED", seconds, lambda left: kept.append(left) or "kept")
    return b"".join(kept)


def test_every_point_arrives_in_order_after_an_outage(delivery, tmp_path, caplog):
    caplog.set_level("INFO", "latentrec")
    metric_logger = sink_on(delivery, tmp_path)
    for step in range(300):
        if step == 100:
            delivery.away.set()
        if step == 200:
            time.sleep(0.2)
            delivery.away.clear()
        metric_logger.log_metrics({"loss": step / 3}, step)
    assert close(metric_logger) == b""
    assert delivery.points() == [(step, step / 3) for step in range(300)]
    assert delivery.received[-1] == {**delivery.received[-1], "kind": "end", "status": "FINISHED"}
    assert not (tmp_path / "spool").exists()
    warnings = caplog.text
    assert warnings.count(f"{AWAY} (connection refused)") == 1
    assert warnings.count(BACK) == 1


def test_a_step_that_ends_while_its_run_is_being_opened_loses_nothing(delivery, tmp_path):
    ended = threading.Event()

    def open_slowly():
        ended.wait(10)
        return ScriptedDelivery.open(delivery)

    delivery.open = open_slowly
    metric_logger = sink_on(delivery, tmp_path)
    time.sleep(0.1)  # the thread has found nothing to send and is opening the run
    metric_logger.log_metrics({"loss": 1.0}, 1)
    threading.Timer(0.3, ended.set).start()
    assert close(metric_logger) == b""
    assert delivery.points() == [(1, 1.0)]
    assert delivery.received[-1]["kind"] == "end"


def test_logging_never_waits_for_a_server_that_is_away(delivery, tmp_path):
    delivery.away.set()
    metric_logger = sink_on(delivery, tmp_path)
    start = time.perf_counter()
    for step in range(2000):
        metric_logger.log_metrics({"loss": 1.0}, step)
    assert time.perf_counter() - start < 2.0
    close(metric_logger, 0.1)


def test_what_could_not_be_sent_is_handed_over_whole(delivery, tmp_path, caplog):
    delivery.away.set()
    metric_logger = sink_on(delivery, tmp_path)
    for step in range(50):
        metric_logger.log_metrics({"loss": 1.0}, step)
    left = close(metric_logger, 0.2)
    assert left.count(b"\n") == 51
    assert "51 records" in caplog.text
    assert (tmp_path / "spool" / "events.jsonl").exists()


def test_retry_on_the_same_machine_sends_what_the_first_attempt_left(delivery, tmp_path):
    delivery.away.set()
    first = sink_on(delivery, tmp_path)
    first.log_metrics({"loss": 1.0}, 1)
    close(first, 0.1)
    delivery.away.clear()
    second = sink_on(delivery, tmp_path)
    second.log_metrics({"loss": 2.0}, 2)
    close(second)
    assert delivery.points() == [(1, 1.0), (2, 2.0)]


def test_a_full_buffer_says_so_and_counts_what_it_refused(delivery, tmp_path, caplog):
    delivery.away.set()
    metric_logger = sink_on(delivery, tmp_path, max_bytes=2_000)
    for step in range(100):
        metric_logger.log_metrics({"loss": 1.0}, step)
    delivery.away.clear()
    time.sleep(0.3)
    close(metric_logger)
    kept = len(delivery.points())
    (count,) = [r["values"]["tracking.refused_records"] for r in delivery.received if r["kind"] == "tags"]
    assert 0 < kept < 100
    assert kept + int(count) == 100
    assert caplog.text.count("the buffer for the tracking server is full") == 1


def test_a_record_that_the_server_refuses_does_not_hold_up_the_others(delivery, tmp_path, caplog):
    delivery.refuse = lambda record: record.get("step") == 3
    metric_logger = sink_on(delivery, tmp_path)
    for step in range(10):
        metric_logger.log_metrics({"loss": 1.0}, step)
    close(metric_logger)
    assert [step for step, _ in delivery.points()] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert "metrics loss: INVALID_PARAMETER_VALUE" in caplog.text


def test_a_record_that_breaks_the_server_is_set_aside_after_a_few_tries(delivery, tmp_path, caplog):
    delivery.break_on = lambda record: record.get("step") == 3
    metric_logger = sink_on(delivery, tmp_path)
    for step in range(6):
        metric_logger.log_metrics({"loss": 1.0}, step)
    close(metric_logger)
    assert [step for step, _ in delivery.points()] == [0, 1, 2, 4, 5]
    assert "metrics loss: 500" in caplog.text


def test_artifact_is_kept_while_the_server_is_away_though_its_file_is_gone(delivery, tmp_path):
    delivery.away.set()
    metric_logger = sink_on(delivery, tmp_path)
    report = tmp_path / "report.html"
    report.write_text("fine")
    metric_logger.log_artifact(report)
    report.unlink()
    seen = []
    send = delivery.send
    delivery.send = lambda records: (
        seen.extend(Path(r["path"]).read_text() for r in records if r["kind"] == "artifact"),
        send(records),
    )
    delivery.away.clear()
    close(metric_logger)
    assert seen == ["fine"]


def test_a_file_that_a_killed_process_had_sent_is_not_sent_again(delivery, tmp_path, caplog):
    """The queue begins anew after a kill; the copy of a file that has arrived is no longer there."""
    before = DiskQueue(tmp_path / "spool", 10_000)
    report = tmp_path / "config.json"
    report.write_text("{}")
    sent, waiting = (before.keep_file(report) for _ in range(2))
    for kept in (sent, waiting):
        before.append({"kind": "artifact", "path": str(kept), "parent": False})
    before.append({"kind": "metrics", "values": {"loss": 1.0}, "step": 7, "time": 1, "parent": False})
    before.drop_file(sent)
    before.close(remove=False)
    close(MlflowMetricLogger(delivery, tmp_path / "spool", 10_000))
    assert [r["path"] for r in delivery.received if r["kind"] == "artifact"] == [str(waiting)]
    assert [step for step, _ in delivery.points()] == [7]
    assert "refuses" not in caplog.text


def test_line_cut_off_by_a_crash_costs_that_line_only(tmp_path):
    spool = DiskQueue(tmp_path / "spool", 10_000)
    spool.append({"kind": "metrics", "step": 1})
    spool.close(remove=False)
    with (tmp_path / "spool" / "events.jsonl").open("ab") as stream:
        stream.write(b'{"kind": "met')
    again = DiskQueue(tmp_path / "spool", 10_000)
    again.append({"kind": "metrics", "step": 2})
    assert again.peek(10) == [
        {"kind": "metrics", "step": 1},
        {"kind": "damaged"},
        {"kind": "metrics", "step": 2},
    ]
    again.close(remove=True)


def test_a_copy_is_kept_while_others_are_sent_and_removed(tmp_path):
    """The sending thread removes what it has sent at any moment; seen to end a step in a container."""
    source = tmp_path / "report"
    source.mkdir()
    for number in range(20):
        (source / f"{number}.html").write_text("x" * 10, encoding="utf-8")
    spool, kept = DiskQueue(tmp_path / "spool", 1_000_000), Queue()

    def send_and_remove():
        while (copy := kept.get()) is not None:
            spool.drop_file(copy)

    sender = threading.Thread(target=send_and_remove)
    sender.start()
    try:
        for _ in range(200):
            copy = spool.keep_file(source)
            assert copy is not None
            kept.put(copy)
    finally:
        kept.put(None)
        sender.join()
    assert list((spool.directory / "files").iterdir()) == []


def test_copies_of_a_dead_process_count_against_the_bound(tmp_path):
    report = tmp_path / "report.html"
    report.write_text("x" * 600, encoding="utf-8")
    dead = DiskQueue(tmp_path / "spool", 1000)
    first = dead.keep_file(report)
    assert first is not None
    assert dead.keep_file(report) is None
    dead.close(remove=False)
    again = DiskQueue(tmp_path / "spool", 1000)
    assert again.keep_file(report) is None
    again.drop_file(first)
    second = again.keep_file(report)
    assert second is not None
    assert second != first


def test_two_processes_of_one_step_keep_apart(tmp_path):
    first, second = DiskQueue(tmp_path / "spool", 1000), DiskQueue(tmp_path / "spool", 1000)
    assert first.directory != second.directory
    first.close(remove=True)
    second.close(remove=True)


def test_a_figure_passes_json_once_and_is_read_back_only_by_another_process(delivery, tmp_path, monkeypatch):
    passes = []
    for name in ("dumps", "loads"):
        real = getattr(unsent.json, name)
        monkeypatch.setattr(unsent.json, name, lambda *a, n=name, f=real: (passes.append(n), f(*a))[1])
    metric_logger = sink_on(delivery, tmp_path)
    for step in range(50):
        metric_logger.log_metrics({"loss": 1.0}, step)
    close(metric_logger)
    assert len(delivery.points()) == 50
    assert passes == ["dumps"] * 51  # and one for the end of the run


def test_a_queue_longer_than_memory_keeps_its_order(delivery, tmp_path, monkeypatch):
    monkeypatch.setattr(unsent, "_IN_MEMORY", 7)
    delivery.away.set()
    metric_logger = sink_on(delivery, tmp_path)
    for step in range(30):
        metric_logger.log_metrics({"loss": 1.0}, step)
    delivery.away.clear()
    for step in range(30, 60):
        metric_logger.log_metrics({"loss": 1.0}, step)
        time.sleep(0.002)
    close(metric_logger)
    assert [step for step, _ in delivery.points()] == list(range(60))


def test_a_disk_that_is_full_for_a_while_costs_only_what_did_not_fit(tmp_path):
    spool = DiskQueue(tmp_path / "spool", 10_000)

    class FullDisk:
        """Takes half of a line."""

        def __init__(self, file):
            self._file = file

        def write(self, line):
            return self._file.write(line[: len(line) // 2])

        def __getattr__(self, name):
            return getattr(self._file, name)

    records = [{"kind": "metrics", "step": step} for step in range(4)]
    assert spool.append(records[0])
    disk, spool._file = spool._file, FullDisk(spool._file)
    assert not spool.append(records[1])
    spool._file = disk
    assert spool.append(records[2])
    assert spool.peek(10) == [records[0], records[2]]
    spool.close(remove=False)
    again = DiskQueue(tmp_path / "spool", 10_000)
    assert again.peek(10) == [records[0], records[2]]
    assert (again.refused, spool.refused) == (0, 1)
    again.close(remove=True)
