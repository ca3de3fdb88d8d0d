"""`mlflow models serve`: documented calls are answered, malformed ones get a reason, nothing leaks."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LEAKS = re.compile(r'site-packages|Traceback|File "|/home/|/root/|/tmp/|\.py\b|stack_trace|__pyfunc')


def predictions(server, body):
    status, text = server.post(body)
    assert status == 200, text
    return json.loads(text)["predictions"]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [{"history": ["B0003", "B0004"]}]},
        {"dataframe_split": {"columns": ["history"], "data": [[["B0003", "B0004"]]]}},
        {"inputs": {"history": [["B0003", "B0004"]]}},
        {"inputs": [{"history": ["B0003", "B0004"]}]},
        {"instances": [{"history": ["B0003", "B0004"]}]},
    ],
    ids=["records", "split", "columns", "inputs", "instances"],
)
def test_every_documented_format_gets_the_same_answer(server, body):
    (answer,) = predictions(server, body)
    (expected,) = predictions(server, {"dataframe_records": [{"history": ["B0003", "B0004"]}]})
    assert list(answer) == [
        "item_keys", "titles", "scores", "unknown_items", "fallback", "model", "version"
    ]  # fmt: skip
    assert len(answer["item_keys"]) == 10
    assert answer["item_keys"] == expected["item_keys"]


def test_parameters_are_honored(server):
    rows = [{"history": ["B0003", "B0004"]}]
    (short,) = predictions(server, {"dataframe_records": rows, "params": {"k": 3}})
    assert len(short["item_keys"]) == 3
    everything = {"k": 30, "exclude_history": False}
    (all_items,) = predictions(server, {"dataframe_records": rows, "params": everything})
    assert len(set(all_items["item_keys"])) == 30
    (without,) = predictions(
        server, {"dataframe_records": rows, "params": {**everything, "exclude_history": True}}
    )
    assert set(all_items["item_keys"]) - set(without["item_keys"]) == {"B0003", "B0004"}


def test_a_batch_answers_each_row_as_if_alone(server):
    histories = [["B0003"], [], ["nope"], ["B0007", "B0008", "B0009"]]
    rows = predictions(server, {"dataframe_records": [{"history": history} for history in histories]})
    for row, history in zip(rows, histories, strict=True):
        (alone,) = predictions(server, {"dataframe_records": [{"history": history}]})
        assert row["item_keys"] == alone["item_keys"]
        assert row["scores"] == pytest.approx(alone["scores"], rel=1e-4)


def test_a_title_stands_in_for_a_key_that_is_not_known(server):
    row = {"history": ["gone from the shop"], "history_titles": ["Title B0004"]}
    (by_title,) = predictions(server, {"dataframe_records": [row]})
    (by_key,) = predictions(server, {"dataframe_records": [{"history": ["B0004"]}]})
    assert by_title["item_keys"] == by_key["item_keys"]
    assert (by_title["unknown_items"], by_title["fallback"]) == (0, False)


def test_no_rows_get_no_predictions(server):
    assert predictions(server, {"dataframe_records": []}) == []


MALFORMED = {
    "not json": (b"{", "not JSON"),
    "not utf-8": (b"\xff\xfe{", "not JSON"),
    "a list": ([], "expected an object"),
    "no format": ({"rows": []}, "exactly one of"),
    "two formats": ({"inputs": [], "instances": []}, "exactly one of"),
    "unknown field": ({"inputs": [], "model": "x"}, "unknown field 'model'"),
    "no history": ({"inputs": [{}]}, "row 0: the field 'history' is missing"),
    "history is text": ({"inputs": [{"history": "B1"}]}, "expected a list of item keys"),
    "history of numbers": ({"inputs": [{"history": [1]}]}, "row 0.history has 1, expected text"),
    "history is null": ({"inputs": [{"history": None}]}, "expected a list"),
    "second row": ({"inputs": [{"history": []}, {"history": 3}]}, "row 1.history is 3"),
    "unknown column": ({"inputs": [{"history": [], "user": 1}]}, "no field 'user'"),
    "uneven titles": ({"inputs": [{"history": [], "history_titles": ["x"]}]}, "1 history_titles"),
    "k is text": ({"inputs": [{"history": []}], "params": {"k": "many"}}, "params.k is 'many'"),
    "k is zero": ({"inputs": [{"history": []}], "params": {"k": 0}}, "from 1 to 200"),
    "k is huge": ({"inputs": [{"history": []}], "params": {"k": 10**30}}, "from 1 to 200"),
    "k is a truth": ({"inputs": [{"history": []}], "params": {"k": True}}, "params.k is True"),
    "unknown parameter": (
        {"inputs": [{"history": []}], "params": {"temperature": 1}},
        "no parameter 'temperature'",
    ),
    "params is a list": ({"inputs": [{"history": []}], "params": [1]}, "params is no object"),
    "long history": ({"inputs": [{"history": ["B0001"] * 1001}]}, "at most 1000"),
    "many rows": ({"inputs": [{"history": []}] * 1025}, "more than 1024 rows"),
    "deep nesting": (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ""),
    "ragged columns": ({"inputs": {"history": [[], []], "history_titles": [[]]}}, "differ in length"),
    "ragged split": (
        {"dataframe_split": {"columns": ["history"], "data": [[]]}},
        "row 0 does not have 1 values",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request_gets_400_with_the_reason(server, name):
    body, reason = MALFORMED[name]
    status, text = server.post(body)
    assert status == 400, text
    assert reason in json.loads(text)["message"]
    assert not LEAKS.search(text), text


@pytest.mark.parametrize("content_type", ["text/csv", "application/vnd.apache.parquet", "text/plain", None])
def test_other_content_types_are_refused(server, content_type):
    status, text = server.post(b"history\nB1\n", content_type=content_type)
    assert status == 415
    assert not LEAKS.search(text), text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        "inputs",
        "instances",
        "dataframe_records",
        "dataframe_split",
        "params",
        "history",
        "history_titles",
        "k",
        "columns",
        "data",
        "exclude_history",
    ]
)
SHAPED = st.dictionaries(NAMES, JSON | st.dictionaries(NAMES, JSON, max_size=3), max_size=4)
HISTORY = st.fixed_dictionaries({"history": JSON | st.lists(st.text(max_size=8))})
ROWS = st.fixed_dictionaries(
    {"inputs": st.lists(HISTORY, max_size=3)},
    optional={"params": st.dictionaries(st.sampled_from(["k", "exclude_history"]), JSON)},
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=JSON | SHAPED | ROWS | st.binary(max_size=200))
def test_fuzzed_requests_neither_crash_the_server_nor_leak_a_path(server, body):
    status, text = server.post(body)
    assert status in (200, 400), (body, text)
    assert not LEAKS.search(text), text


def test_twenty_clients_at_once_get_the_answers_that_one_gets(server):
    histories = [[f"B{item:04d}", f"B{(item + 7) % 30:04d}"] for item in range(20)]
    alone = [predictions(server, {"inputs": [{"history": h}]})[0]["item_keys"] for h in histories]
    wrong, times = [], []

    def client(number):
        for _ in range(10):
            start = time.perf_counter()
            (answer,) = predictions(server, {"inputs": [{"history": histories[number]}]})
            times.append(time.perf_counter() - start)
            if answer["item_keys"] != alone[number]:
                wrong.append(number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(times) == 200
