"""Each input is opened once in data preparation, and once by preflight, whatever is wanted of it."""

import os
from collections import Counter

import pyarrow.parquet as pq
import pytest

from latentrec.data import DataPrepConfig, prepare
from latentrec.data.reading.input_files import fingerprint_inputs
from latentrec.steps.inputs import recognize_inputs
from latentrec.storage import store_for
from latentrec.storage.local import LocalStore
from tests.fixtures.review_files import grid, lines, review, titles, write


@pytest.fixture
def opened(monkeypatch) -> Counter:
    """Counts the openings of each local file, by its name."""
    counts: Counter = Counter()
    really = LocalStore.open_read

    def open_read(self, uri):
        counts[os.path.basename(uri)] += 1
        return really(self, uri)

    monkeypatch.setattr(LocalStore, "open_read", open_read)
    return counts


@pytest.fixture
def inputs(tmp_path) -> DataPrepConfig:
    """Reviews in two files of different formats, and metadata."""
    rows = [{**row, "reviewText": f"text {n}", "summary": f"headline {n}"} for n, row in enumerate(grid())]
    first = write(tmp_path / "a.json.gz", lines(rows[:20]))
    second = write(tmp_path / "b.json.zst", lines(rows[20:]))
    metadata = write(tmp_path / "meta.json", lines(titles()))
    return DataPrepConfig(reviews=(first, second), metadata=(metadata,), k_core=1)


ONCE = {"a.json.gz": 1, "b.json.zst": 1, "meta.json": 1}


@pytest.mark.parametrize("task", ["next_item", "rating"])
def test_data_preparation_opens_each_file_once(opened, inputs, tmp_path, task):
    prepare(inputs.replace(task=task), tmp_path / "out")
    assert opened == ONCE


def test_preflight_opens_each_file_once(opened, inputs):
    assert recognize_inputs(inputs.reviews, inputs.metadata) == [
        "amazon2018",
        "amazon2018",
        "amazon metadata (asin)",
    ]
    assert opened == ONCE


def test_texts_that_waited_stand_beside_their_events_and_leave_nothing(inputs, tmp_path):
    manifest = prepare(inputs.replace(task="rating"), tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "interactions.parquet")
    rows = sorted(zip(table["timestamp"].to_pylist(), table["review_text"].to_pylist(), strict=True))
    expected = sorted((row["unixReviewTime"], f"text {n}") for n, row in enumerate(grid()))
    assert rows == expected
    assert table["summary"].to_pylist() == [
        text.replace("text", "headline") for text in table["review_text"].to_pylist()
    ]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {*manifest.files, "manifest.json", "report.html"}


def test_no_byte_of_a_bucket_s_object_is_fetched_twice(gcs_server, tmp_path):
    rows = [review(f"U{n % 5003}", f"B{n % 300:09d}", reviewText="x" * 400) for n in range(40_000)]
    data = lines(rows)
    assert len(data) > 16 << 20, "several ranges"
    store_for("gs://bucket/").write_bytes("gs://bucket/reviews.json", data)
    config = DataPrepConfig(reviews=("gs://bucket/reviews.json",), k_core=2, task="rating")
    seen = fingerprint_inputs(config.reviews, ())
    gcs_server.requests.clear()
    prepare(config, tmp_path / "out", inputs_fingerprint=seen)
    asked = Counter("content" if "alt=media" in path else "stat" for _, path in gcs_server.requests)
    assert asked == {"content": -(-len(data) // (8 << 20)), "stat": 4}
