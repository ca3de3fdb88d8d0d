"""Trace files, the endpoint client against a server on this machine, and what a kill costs."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from latentrec.data.dataset import Dataset
from latentrec.prompts.rating_examples import RatingTask
from latentrec.prompts.rating_format import RatingAnswer, parse_answer, render_answer
from latentrec.training.rating.chat_endpoint import EndpointError
from latentrec.training.rating.trace_records import Journal, Trace, read_traces, write_traces
from latentrec.training.rating.traces import TracesConfig, make_traces
from tests.errors import refused
from tests.training.rating.teacher import GOOD, SCALE, Teacher, chat, config


@pytest.fixture
def truths(dataset):
    """True rating of every training sample, by the text of its full prompt's target line."""
    return {example.row: example for example in RatingTask(dataset).examples("train")}


def rating_asked_for(prompt, examples):
    """The true rating of the sample that a prompt shows, found by its reviews (each names its row)."""
    rows = [int(number) for number in re.findall(r"(?:review|summary) (\d+)", prompt)]
    row = max(rows) + 1
    return examples[row].rating


def test_template_traces_are_valid_and_right(rating_dataset, tmp_path):
    report = make_traces(TracesConfig(samples=30), dataset=rating_dataset, output=tmp_path / "t.jsonl")
    traces = read_traces(str(tmp_path / "t.jsonl"), SCALE, max_error=0.0)
    assert report.traces == len(traces) == 30
    assert {trace.source for trace in traces} == {"template"}
    assert len({trace.row for trace in traces}) == 30


def test_template_traces_are_the_same_for_the_same_seed(rating_dataset, tmp_path):
    for name in ("a", "b"):
        make_traces(TracesConfig(samples=10), dataset=rating_dataset, output=tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        ("{", "traces.bad_record", ()),
        ("[1]", "traces.bad_record", ("list",)),
        ('{"prompt": "p", "rating": 4}', "traces.bad_record", ("'completion'", "None")),
        (
            json.dumps({"prompt": "p", "completion": GOOD, "rating": "4"}),
            "traces.bad_record",
            ("'rating'", "'4'"),
        ),
        (
            json.dumps({"prompt": "p", "completion": GOOD, "rating": 9}),
            "traces.bad_rating",
            ("'rating'", "9", "1 to 5"),
        ),
        (
            json.dumps({"prompt": "p", "completion": "4.0", "rating": 4}),
            "traces.bad_format",
            ("'completion'", "<analyze user>"),
        ),
        (
            json.dumps({"prompt": "p", "completion": GOOD, "rating": 1}),
            "traces.bad_rating",
            ("'completion'", "4", "1", "0.5"),
        ),
    ],
)
def test_wrong_trace_line_is_named(tmp_path, line, code, named):
    good = json.dumps({"prompt": "p", "completion": GOOD, "rating": 4})
    path = tmp_path / "traces.jsonl"
    path.write_text(f"{good}\n{line}\n")
    with refused(code, "traces.jsonl, line 2", *named):
        read_traces(str(path), SCALE, max_error=0.5)


def test_missing_or_empty_trace_file_is_an_error(tmp_path):
    with refused("traces.not_found"):
        read_traces(str(tmp_path / "none"), SCALE)
    (tmp_path / "empty").write_text("\n\n")
    with refused("traces.empty"):
        read_traces(str(tmp_path / "empty"), SCALE)


def test_traces_survive_a_round_trip(tmp_path):
    traces = [Trace("p “é”", GOOD, 4.0, 7, "x", True), Trace("q", GOOD, 4.0)]
    write_traces(traces, str(tmp_path / "t"))
    assert sorted(read_traces(str(tmp_path / "t"), SCALE), key=lambda t: -t.row) == traces


def test_a_text_may_hold_what_python_takes_for_the_end_of_a_line(tmp_path):
    trace = Trace("how\u2028is\x85it", render_answer("likes", "a\u2029b", "fits", 4.0), 4.0)
    write_traces([trace], str(tmp_path / "t.jsonl"))
    assert [one.prompt for one in read_traces(str(tmp_path / "t.jsonl"), SCALE)] == [trace.prompt]


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ({"rating": 10**400}, "traces.bad_rating", ("'rating'", "1000000")),
        ({"prompt": "half \ud83c"}, "traces.bad_record", ("'prompt'", "U+D83C")),
    ],
)
def test_values_that_nothing_can_hold_are_named(tmp_path, change, code, named):
    line = {"prompt": "how", "completion": render_answer("a", "b", "c", 4.0), "rating": 4.0}
    (tmp_path / "t.jsonl").write_text(json.dumps(line | change) + "\n")
    with refused(code, "t.jsonl, line 1", *named):
        read_traces(str(tmp_path / "t.jsonl"), SCALE)


def test_wrong_rating_is_asked_again_with_the_truth(rating_dataset, truths, tmp_path):
    def script(prompt, _):
        truth = rating_asked_for(prompt, truths)
        told = "the user's true rating was" in prompt
        return 200, chat(render_answer("u", "i", "m", truth if told else (1.0 if truth > 3 else 5.0))), {}

    with Teacher(script) as teacher:
        report = make_traces(config(teacher.url), dataset=rating_dataset, output=tmp_path / "t")
    traces = read_traces(str(tmp_path / "t"), SCALE, max_error=0.0)
    assert report.regenerated == report.traces == len(traces) == 12
    assert all(trace.regenerated and "true rating" not in trace.prompt for trace in traces)
    assert report.dropped == 0


def test_broken_format_is_asked_again_and_dropped_when_it_stays_broken(rating_dataset, tmp_path):
    calls = Counter()

    def script(prompt, _):
        calls["told" if "the user's true rating was" in prompt else "asked"] += 1
        return 200, chat("I would say five"), {}

    with Teacher(script) as teacher, refused("traces.none_usable"):
        make_traces(config(teacher.url), dataset=rating_dataset, output=tmp_path / "t")
    assert calls == {"asked": 12, "told": 12}


def test_cost_is_shown_and_a_limit_stops_the_asking(rating_dataset, truths, tmp_path):
    def script(prompt, _):
        return 200, chat(render_answer("u", "i", "m", rating_asked_for(prompt, truths)), 1000, 1000), {}

    with Teacher(script) as teacher:
        settings = config(
            teacher.url, input_price=1000.0, output_price=1000.0, max_cost=6.0, concurrency=1
        )  # 2 an answer
        report = make_traces(settings, dataset=rating_dataset, output=tmp_path / "t")
    assert report.traces == 3
    assert report.unasked == 9
    assert report.cost == pytest.approx(6.0)
    assert "cost 6.0000" in str(report)


def test_journal_drops_a_line_that_a_kill_cut_off(tmp_path):
    journal = Journal(str(tmp_path / "t"))
    journal.add({"key": "a", "text": "x"})
    journal.close(remove=False)
    with journal.path.open("ab") as stream:
        stream.write(b'{"key": "b", "te')
    again = Journal(str(tmp_path / "t"))
    assert set(again.entries) == {"a"}
    again.add({"key": "c", "text": "y"})
    again.close(remove=False)
    assert set(Journal(str(tmp_path / "t")).entries) == {"a", "c"}


def test_failing_endpoint_keeps_what_was_paid_for(rating_dataset, truths, tmp_path):
    healthy = threading.Event()

    def script(prompt, _):
        if len(teacher.asked) > 5 and not healthy.is_set():
            return 503, b"", {}
        return 200, chat(render_answer("u", "i", "m", rating_asked_for(prompt, truths))), {}

    with Teacher(script) as teacher:
        with pytest.raises(EndpointError) as failed:
            make_traces(config(teacher.url, concurrency=1), dataset=rating_dataset, output=tmp_path / "t")
        assert failed.value.fault == "HTTP 503"
        assert not (tmp_path / "t").exists()
        healthy.set()
        report = make_traces(
            config(teacher.url, concurrency=1), dataset=rating_dataset, output=tmp_path / "t"
        )
    assert report.traces == 12
    assert report.paid_now == 7
    assert not (tmp_path / "t.journal").exists()


def test_killed_asking_goes_on_without_paying_twice(rating_dataset, truths, tmp_path):
    paid = Counter()
    slow = threading.Event()

    def script(prompt, _):
        if len(paid) >= 6 and not slow.is_set():
            time.sleep(30)  # the process is killed while this request is in flight
        paid[prompt] += 1
        return 200, chat(render_answer("u", "i", "m", rating_asked_for(prompt, truths))), {}

    output = tmp_path / "t.jsonl"
    with Teacher(script) as teacher:
        command = [
            sys.executable, "-m", "latentrec", "traces", "--dataset", str(rating_dataset),
            "--output", str(output), "--endpoint", teacher.url, "--model", "teacher",
            "--samples", "12", "--concurrency", "1",
            "--requests-per-minute", "0", "--timeout", "60",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        journal = Path(f"{output}.journal")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (not journal.exists() or journal.read_bytes().count(b"\n") < 6):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not output.exists()
        slow.set()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert len(read_traces(str(output), SCALE, max_error=0.5)) == 12
    assert len(paid) == 12
    assert set(paid.values()) == {1}


def test_traces_show_no_truth_in_their_prompts(rating_dataset, tmp_path):
    make_traces(TracesConfig(samples=10), dataset=rating_dataset, output=tmp_path / "t")
    for line in (tmp_path / "t").read_text().splitlines():
        trace = json.loads(line)
        assert "true rating" not in trace["prompt"]
        assert isinstance(parse_answer(trace["completion"]), RatingAnswer)


def test_next_item_dataset_is_refused_before_anything_is_asked(rating_dataset, tmp_path):
    assert Dataset(rating_dataset).has_titles
    with refused("config.invalid", "traces: model"):
        TracesConfig(endpoint="http://127.0.0.1:1/v1")
    with refused("config.invalid", "traces: endpoint", "'ftp://x'"):
        make_traces(
            TracesConfig(endpoint="ftp://x", model="m"), dataset=rating_dataset, output=tmp_path / "t"
        )
