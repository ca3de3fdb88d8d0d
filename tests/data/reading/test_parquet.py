"""Tables that a warehouse or Spark exported give, byte for byte, what the same reviews give as JSON lines."""

import datetime
import decimal
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from latentrec.data import DataPrepConfig, prepare
from latentrec.data.reading.input_files import InputFile, fingerprint_inputs
from latentrec.data.reading.line_reader import BadLines
from latentrec.data.reading.parquet import open_parquet
from latentrec.data.reading.parquet_reviews import ReviewReader
from latentrec.steps.inputs import recognize_inputs
from latentrec.storage import store_for
from tests.fixtures.review_files import grid, lines, titles, write
from tests.fixtures.review_tables import columns

ROWS = grid()


def as_time(unit, zone=None):
    return lambda seconds: seconds.cast(pa.timestamp("s", zone)).cast(pa.timestamp(unit, zone))


def times(factor):
    return lambda seconds: pa.array([second * factor + 321 % factor for second in seconds.to_pylist()])


TABLES = {
    "amazon 2018": columns(("reviewerID", "asin", "overall", "unixReviewTime")),
    "amazon 2018 as Hive spells it": columns(("reviewerid", "asin", "overall", "unixreviewtime")),
    "amazon 2023": columns(("user_id", "parent_asin", "rating", "timestamp"), timestamp=times(1000)),
    "amazon 2023 in seconds": columns(("user_id", "parent_asin", "rating", "timestamp")),
    "short names": columns(),
    "names of a CSV header": columns(("userId", "movieId", "stars", "time")),
    "BigQuery's TIMESTAMP": columns(timestamp=as_time("us", "UTC")),
    "another time zone": columns(timestamp=as_time("us", "America/New_York")),
    "DATETIME": columns(timestamp=as_time("us")),
    "nanoseconds": columns(timestamp=as_time("ns")),
    "DATE": columns(timestamp=lambda s: s.cast(pa.timestamp("s")).cast(pa.date32())),
    "whole ratings": columns(rating=pa.int8()),
    "single precision": columns(rating=pa.float32()),
    "NUMERIC": columns(rating=lambda r: pa.array([decimal.Decimal(str(v)) for v in r.to_pylist()])),
    "dictionaries": columns(user=lambda v: v.dictionary_encode(), item=lambda v: v.dictionary_encode()),
    "large strings": columns(user=pa.large_string()),
    "more columns": columns().append_column("tags", pa.array([[{"a": 1}]] * len(ROWS))),
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_table_of_the_schema_gives_what_json_lines_give(tmp_path, expected, kind):
    path = tmp_path / "export"
    pq.write_table(TABLES[kind], path, row_group_size=7)
    (name,) = recognize_inputs((str(path),), ())
    manifest = prepare(DataPrepConfig(reviews=(str(path),), k_core=1), tmp_path / "out")
    assert manifest.fingerprint == expected
    assert manifest.extra["formats"] == [name]
    assert manifest.counts["raw"] == len(ROWS)


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd"])
def test_every_compression_is_read(tmp_path, expected, codec):
    pq.write_table(columns(), tmp_path / "export", compression=codec, data_page_version="2.0")
    made = prepare(DataPrepConfig(reviews=(f"{tmp_path}/export",), k_core=1), tmp_path / "out")
    assert made.fingerprint == expected


def test_sparks_old_timestamps_are_read(tmp_path, expected):
    table = columns(timestamp=as_time("ns"))
    pq.write_table(table, tmp_path / "export", use_deprecated_int96_timestamps=True)
    made = prepare(DataPrepConfig(reviews=(f"{tmp_path}/export",), k_core=1), tmp_path / "out")
    assert made.fingerprint == expected


@pytest.mark.parametrize("by", [("rating",), ("item",), ("user", "rating")])
def test_columns_may_stand_in_the_names_of_folders(tmp_path, expected, by):
    """As Spark's ``partitionBy`` and Hive write them, with their bookkeeping beside."""
    base = tmp_path / "reviews"
    flavor = ds.partitioning(pa.schema([columns().schema.field(name) for name in by]), flavor="hive")
    ds.write_dataset(columns(), base, format="parquet", partitioning=flavor)
    (base / "_SUCCESS").touch()
    for path in base.rglob("*.parquet"):
        (path.parent / f".{path.name}.crc").write_bytes(b"crc")
    recognize_inputs((str(base),), ())
    made = prepare(DataPrepConfig(reviews=(str(base),), k_core=1), tmp_path / "out")
    assert made.fingerprint == expected


def test_times_may_stand_in_the_names_of_folders(tmp_path, expected):
    for row in ROWS:
        day = datetime.datetime.fromtimestamp(row["unixReviewTime"], datetime.UTC).date()
        for folder in (
            tmp_path / "days" / f"time={day}",
            tmp_path / "seconds" / f"time={row['unixReviewTime']}",
        ):
            folder.mkdir(parents=True, exist_ok=True)
            table = pa.table({"user": [row["reviewerID"]], "item": [row["asin"]], "rating": [row["overall"]]})
            pq.write_table(table, folder / f"{row['reviewerID']}.parquet")
    for name in ("days", "seconds"):
        config = DataPrepConfig(reviews=(f"{tmp_path}/{name}",), k_core=1)
        assert prepare(config, tmp_path / f"out-{name}").fingerprint == expected


def test_parts_patterns_and_empty_parts(tmp_path, expected):
    folder = tmp_path / "export"
    folder.mkdir()
    paths = [folder / f"{number:012d}.parquet" for number in range(4)]
    for number, path in enumerate(paths):  # the last one has no row
        pq.write_table(columns().slice(number * 10, 10), path)
    (folder / "schema.txt").write_text("no data")
    made = prepare(DataPrepConfig(reviews=(f"{folder}/*.parquet",), k_core=1), tmp_path / "out")
    assert made.fingerprint == expected
    assert [source["bytes"] for source in made.extra["source"]] == [path.stat().st_size for path in paths]


def test_tables_and_lines_may_be_mixed(tmp_path, expected):
    write(tmp_path / "a.json.gz", lines(ROWS[:11]))
    pq.write_table(columns().slice(11), tmp_path / "b.parquet")
    made = prepare(
        DataPrepConfig(reviews=(f"{tmp_path}/a.json.gz", f"{tmp_path}/b.parquet"), k_core=1), tmp_path / "out"
    )
    assert made.fingerprint == expected
    assert made.extra["formats"] == ["amazon2018", "parquet (ratings)"]


def test_whole_numbers_as_keys_are_read_as_text(tmp_path):
    keys = {"user": lambda v: pa.array([int(one[1:]) for one in v.to_pylist()])}
    keys["item"] = lambda v: pa.array([int(one[1:]) for one in v.to_pylist()])
    pq.write_table(columns(**keys), tmp_path / "a.parquet")
    rows = [{**row, "reviewerID": row["reviewerID"][1:], "asin": str(int(row["asin"][1:]))} for row in ROWS]
    path = write(tmp_path / "a.json", lines(rows))
    one, two = (
        prepare(DataPrepConfig(reviews=(given,), k_core=1), tmp_path / f"out{number}").fingerprint
        for number, given in enumerate((path, f"{tmp_path}/a.parquet"))
    )
    assert one == two


TEXTS = [
    {**row, "reviewText": None if n % 4 == 0 else f"text {n} \u00e9", "summary": f"line {n}"}
    for n, row in enumerate(ROWS)
]
PRODUCTS = titles(
    brand="Acme",
    description=["<b>good</b>", "cheap"],
    category=["Gifts", "Cards"],
    price="$1.00",
    also_buy=[],
)
DETAILS = [
    {"parent_asin": row["asin"], "title": row["title"], "details": {"Brand": f"Brand {n}", "Weight": "1 lb"}}
    for n, row in enumerate(titles())
]


def make(tmp_path, name, reviews, metadata):
    config = DataPrepConfig(reviews=(reviews,), metadata=(metadata,), k_core=1, task="rating")
    return prepare(config, tmp_path / name).fingerprint


@pytest.mark.parametrize("products", [PRODUCTS, DETAILS], ids=["2018", "2023"])
def test_texts_and_metadata_are_those_of_json_lines(tmp_path, products):
    reviews, metadata = write(tmp_path / "r.json", lines(TEXTS)), write(tmp_path / "m.json", lines(products))
    wanted = make(tmp_path, "lines", reviews, metadata)
    pq.write_table(pa.Table.from_pylist(TEXTS), tmp_path / "r.parquet", row_group_size=11)
    pq.write_table(pa.Table.from_pylist(products), tmp_path / "m.parquet", row_group_size=2)
    assert make(tmp_path, "tables", f"{tmp_path}/r.parquet", f"{tmp_path}/m.parquet") == wanted
    assert recognize_inputs((), (f"{tmp_path}/m.parquet",))[0].startswith("parquet metadata")


@pytest.mark.parametrize("kind", ["text", "map"])
def test_details_may_be_text_or_a_map(tmp_path, kind):
    """As the public 2023 tables, and BigQuery's JSON columns, hold them."""
    reviews, metadata = write(tmp_path / "r.json", lines(TEXTS)), write(tmp_path / "m.json", lines(DETAILS))
    wanted = make(tmp_path, "lines", reviews, metadata)
    table = pa.Table.from_pylist(DETAILS).drop_columns(["details"])
    details = [row["details"] for row in DETAILS]
    if kind == "text":
        column = pa.array([json.dumps(one) for one in details])
    else:
        column = pa.array([[*one.items()] for one in details], pa.map_(pa.string(), pa.string()))
    pq.write_table(table.append_column("details", column), tmp_path / "m.parquet")
    assert make(tmp_path, "tables", reviews, f"{tmp_path}/m.parquet") == wanted


def test_a_bucket_s_tables_are_read_and_preflight_fetches_their_ends_only(gcs_server, tmp_path, expected):
    for number in range(3):
        path = tmp_path / f"rating-{number}.parquet"
        pq.write_table(columns().slice(number * 10, 10), path)
        store_for("gs://bucket/").upload_file(path, f"gs://bucket/reviews/day={number}/part-0.parquet")
    config = DataPrepConfig(reviews=("gs://bucket/reviews/",), k_core=1)
    assert recognize_inputs(config.reviews, ()) == ["parquet (ratings)"] * 3
    seen = fingerprint_inputs(config.reviews, ())
    made = prepare(config, tmp_path / "out", inputs_fingerprint=seen)
    assert made.fingerprint == expected
    assert all(len(source["sha256"]) == 64 for source in made.extra["source"])


def test_a_large_table_s_index_is_fetched_without_its_rows(gcs_server, tmp_path):
    rows = 60_000
    table = pa.table(
        {
            "user": [f"U{n % 997}" for n in range(rows)],
            "item": [f"I{n % 991}" for n in range(rows)],
            "rating": [5.0] * rows,
            "timestamp": pa.array(range(1_500_000_000, 1_500_000_000 + rows)),
            "comment": [f"{n:0500d}" for n in range(rows)],
        }
    )
    pq.write_table(table, tmp_path / "big.parquet", compression="none", use_dictionary=False)
    size = (tmp_path / "big.parquet").stat().st_size
    assert size > 24 << 20
    store_for("gs://bucket/").upload_file(tmp_path / "big.parquet", "gs://bucket/big.parquet")
    gcs_server.requests.clear()
    recognize_inputs(("gs://bucket/big.parquet",), ())
    fetched = sum("alt=media" in path for _, path in gcs_server.requests)
    assert fetched <= 3, "the first pieces, by which the format is told, and the end"


def test_memory_holds_a_batch_and_not_a_row_group(tmp_path):
    """400,000 rows, 120 MB of text, in one row group."""
    path = Path(tmp_path / "big.parquet")
    rows = 20_000
    part = {"user": [f"U{n}" for n in range(rows)], "item": [f"I{n % 7}" for n in range(rows)]}
    part |= {"rating": [4.0] * rows, "timestamp": [1_500_000_000] * rows}
    part |= {"review_text": [f"{n:0300d}" for n in range(rows)]}
    pq.write_table(
        pa.concat_tables([pa.table(part)] * 20), path, row_group_size=1 << 20, use_dictionary=False
    )
    assert pq.read_metadata(path).num_row_groups == 1
    before, most, seen = pa.total_allocated_bytes(), 0, 0
    with open_parquet(InputFile(str(path), path.stat().st_size), whole=True) as table:
        for found, read, _ in ReviewReader.of(table, with_texts=True).tables(BadLines(False, 0.0)):
            seen += read
            most = max(most, pa.total_allocated_bytes() - before)
            del found
    assert seen == 20 * rows
    assert most < 32 << 20
