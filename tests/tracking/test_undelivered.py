"""Hand-overs of figures: what they say is checked, because others may write to the bucket they stand in."""

import json
from pathlib import Path

import pytest

from latentrec.tracking.delivery import MetricsRejected
from latentrec.tracking.run_context import RunContext
from latentrec.tracking.unsent import list_undelivered, send_undelivered, store_undelivered

METRIC = {"kind": "metrics", "values": {"loss": 1.5}, "step": 7, "time": 1}


class Server:
    """Takes records, and reads the files of artifacts while they are there."""

    def __init__(self, refuse=lambda record: False):
        self.refuse = refuse
        self.records: list[dict] = []
        self.files: dict[str, str] = {}

    def send(self, records):
        if any(map(self.refuse, records)):
            raise MetricsRejected("no")
        for record in records:
            self.records.append(record)
            if record["kind"] == "artifact":
                path = Path(record["path"])
                inside = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
                self.files |= {str(p.relative_to(path.parent)): p.read_text() for p in inside}


@pytest.fixture(params=["local", "gs"])
def context(request, tmp_path) -> RunContext:
    if request.param == "gs":
        request.getfixturevalue("gcs_server")
        return RunContext("sqlite://", run_id="run-1", status_root="gs://bucket/status")
    return RunContext("sqlite://", run_id="run-1", status_root=str(tmp_path / "status"))


def lines(*records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def hand_over(context: RunContext, *records) -> str:
    uri = store_undelivered(context, "sft", lines(*records))
    assert uri
    return uri


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_figures_files_and_folders_arrive_and_nothing_is_left(context, tmp_path):
    (tmp_path / "plots" / "more").mkdir(parents=True)
    (tmp_path / "plots" / "a.svg").write_text("a")
    (tmp_path / "plots" / "more" / "events.jsonl").write_text("no hand-over")
    (tmp_path / "report.md").write_text("# fine")
    uri = hand_over(
        context,
        METRIC,
        {"kind": "artifact", "path": str(tmp_path / "plots")},
        {"kind": "artifact", "path": str(tmp_path / "report.md")},
    )
    root = uri.rpartition("/")[0]
    assert list_undelivered(root) == [("sft", uri)]
    server = Server()
    assert send_undelivered(uri, server) == 3
    assert server.records[0] == METRIC
    expected = {"plots/a.svg": "a", "plots/more/events.jsonl": "no hand-over", "report.md": "# fine"}
    assert server.files == expected
    assert list_undelivered(root) == []


def test_two_attempts_of_a_step_do_not_overwrite_each_other(context):
    first, second = hand_over(context, METRIC), hand_over(context, METRIC)
    assert len({first, second}) == 2


@pytest.mark.parametrize(
    "hostile",
    [
        {"kind": "artifact", "path": "SECRET"},
        {"kind": "artifact", "path": "SECRET", "kept": {}},
        {"kind": "artifact", "kept": {"../../precious": "SECRET"}},
        {"kind": "artifact", "kept": ["../../../../precious"]},
        {"kind": "artifact", "kept": ["SECRET"]},
        {"kind": "artifact", "kept": ["a", "b"]},
        {"kind": "artifact", "kept": [7]},
        {"kind": "artifact", "kept": ["gone"]},
        {"kind": "artifact", "kept": [["a"]], "locations": ["SECRET"]},
        {"kind": "metrics"},
        {"kind": ["metrics"]},
        {"kind": "metrics", "values": 3},
        ["metrics"],
        "text",
        10**300,
    ],
)
def test_what_a_hand_over_says_reads_writes_and_removes_nothing_elsewhere(tmp_path, hostile):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    context = RunContext("sqlite://", run_id="run-1", status_root=str(tmp_path / "status"))
    uri = hand_over(context, METRIC)
    text = json.dumps(hostile).replace("SECRET", str(precious))
    Path(uri).write_bytes(lines(METRIC) + text.encode() + b"\n" + b"[" * 100_000 + b"\n" + lines(METRIC))
    server = Server(lambda record: not isinstance(record.get("values", {}), dict) or len(record) == 1)
    assert send_undelivered(uri, server) == 2
    assert server.records == [METRIC, METRIC]
    assert server.files == {}
    assert precious.read_text() == "mine"
    assert everything_below(tmp_path) == {"precious"}


def test_a_hand_over_stays_while_the_server_is_away(context):
    uri = hand_over(context, METRIC)

    def away(record):
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError):
        send_undelivered(uri, Server(away))
    assert list_undelivered(uri.rpartition("/")[0]) == [("sft", uri)]
