"""What is wrong with a table ends with exit code 2 and one line: code, file, row, column, value and cure."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentrec.data import DataPrepConfig, prepare
from latentrec.steps.inputs import recognize_inputs
from tests.errors import refused
from tests.fixtures.review_files import lines, titles, write
from tests.fixtures.review_tables import NAMES, ROWS, columns


def changed(number, **values):
    """The grid, as short names, with another value in row ``number``."""
    rows = columns().to_pylist()
    rows[number - 1] |= values
    return pa.Table.from_pylist(rows, columns().schema)


def not_utf8():
    key = columns()["user"].combine_chunks()
    bad = [*key.cast(pa.binary()).to_pylist()]
    bad[4] = b"U\xff"
    buffers = pa.array(bad, pa.binary()).buffers()
    return columns().set_column(0, "user", pa.Array.from_buffers(pa.string(), len(bad), buffers))


def flat(name, kind):
    return columns().set_column(NAMES.index(name), name, kind(columns()[name]))


BAD_ROWS = {
    "null user": (changed(3, user=None), "row 3: 'user' is missing"),
    "empty item": (changed(30, item=""), "row 30: 'item' is empty"),
    "zero in a key": (changed(2, item="a\0b"), "row 2: 'item' is 'a\\x00b'"),
    "text that is not UTF-8": (not_utf8(), "row 5: 'user' is not UTF-8"),
    "rating of 7": (changed(11, rating=7.0), "row 11: 'rating' is 7.0"),
    "rating that is no number": (changed(1, rating=float("nan")), "row 1: 'rating' is NaN"),
    "no time": (changed(9, timestamp=None), "row 9: 'timestamp' is missing"),
    "time in microseconds": (changed(9, timestamp=1_500_000_000_000_000), "row 9: 'timestamp' is 15000000"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_named_with_column_and_value(refused_command, tmp_path, kind):
    table, named = BAD_ROWS[kind]
    pq.write_table(table, tmp_path / "r.parquet", row_group_size=4)
    command = [
        "data-prep",
        "--reviews",
        f"{tmp_path}/r.parquet",
        "--k-core",
        "1",
        "--output",
        f"{tmp_path}/out",
    ]
    refused_command(command, "reviews.bad_line", f"{tmp_path}/r.parquet, {named}", "--skip-bad-lines")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_dropped_and_counted_on_request(tmp_path, kind):
    pq.write_table(BAD_ROWS[kind][0], tmp_path / "r.parquet")
    config = DataPrepConfig(
        reviews=(f"{tmp_path}/r.parquet",), k_core=1, skip_bad_lines=True, max_bad_share=0.1
    )
    counts = prepare(config, tmp_path / "out").counts
    assert (counts["bad_lines"], counts["raw"]) == (1, len(ROWS) - 1)
    with refused("reviews.too_many_bad_lines", "1 of 30"):
        prepare(config.replace(max_bad_share=0.01), tmp_path / "other")


BAD_TABLES = {
    "no rating": (
        columns().drop_columns(["rating"]),
        "reviews.missing_field",
        ("'rating'", "stars", "user, item, ti"),
    ),
    "no column of ours": (pa.table({"a": [1]}), "reviews.missing_field", ("'user'", "its columns are a")),
    "products": (pa.Table.from_pylist(titles()), "reviews.missing_field", ("'user'", "--metadata")),
    "ratings as text": (
        columns(rating=pa.string()),
        "reviews.wrong_type",
        ("'rating'", "string", "CAST(rating AS FLOAT64)"),
    ),
    "times as text": (
        columns(timestamp=pa.string()),
        "reviews.wrong_type",
        ("'timestamp'", "CAST(timestamp AS INT64)"),
    ),
    "fractions of seconds": (
        columns(timestamp=pa.float64()),
        "reviews.wrong_type",
        ("'timestamp'", "double"),
    ),
    "keys as bytes": (
        columns(user=pa.binary()),
        "reviews.wrong_type",
        ("'user'", "binary", "CAST(user AS STRING)"),
    ),
    "keys as lists": (
        flat("item", lambda v: pa.array([[one] for one in v.to_pylist()])),
        "reviews.wrong_type",
        ("'item'", "list"),
    ),
    "all null": (flat("user", lambda v: pa.nulls(len(v))), "reviews.wrong_type", ("'user'", "null")),
    "a name twice": (
        columns().append_column("USER", columns()["user"]),
        "reviews.unknown_format",
        ("'user'", "2 columns"),
    ),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_table_of_another_schema_is_refused_with_the_cure_by_preflight_too(refused_command, tmp_path, kind):
    table, code, named = BAD_TABLES[kind]
    path = f"{tmp_path}/r.parquet"
    pq.write_table(table, path)
    refused_command(["data-prep", "--reviews", path, "--output", f"{tmp_path}/out"], code, path, *named)
    assert not (tmp_path / "out").exists()
    with refused(code, path, *named):
        recognize_inputs((path,), ())


@pytest.mark.parametrize(
    ("folder", "code", "named"),
    [
        ("rating=five", "reviews.wrong_type", "rating='five'"),
        ("rating=9", "reviews.bad_line", "row 1: 'rating' is 9.0"),
        ("rating=__HIVE_DEFAULT_PARTITION__", "reviews.bad_line", "row 1: 'rating' is missing"),
        ("stars", "reviews.missing_field", "'rating'"),
    ],
)
def test_a_folder_s_value_is_held_to_the_same(tmp_path, folder, code, named):
    (tmp_path / folder).mkdir()
    pq.write_table(columns().drop_columns(["rating"]), tmp_path / folder / "part.parquet")
    with refused(code, folder, named):
        prepare(DataPrepConfig(reviews=(str(tmp_path),), k_core=1), tmp_path.with_name("out-folder"))


def damaged(data: bytes, kind: str) -> bytes:
    if kind == "cut off":
        return data[:-20]
    if kind == "only its mark":
        return b"PAR1" + b"\0" * 50
    if kind == "a name that is no text":
        return data.replace(b"rating", b"rat\xffng")
    start = data.index(b"U1") - 8  # inside the page of the users
    return data[:start] + bytes(byte ^ 0xFF for byte in data[start : start + 64]) + data[start + 64 :]


@pytest.mark.parametrize("kind", ["cut off", "only its mark", "a name that is no text", "damaged page"])
def test_a_damaged_file_is_named(refused_command, tmp_path, kind):
    path = tmp_path / "r.parquet"
    pq.write_table(columns(), path, compression="none", use_dictionary=False, write_page_checksum=True)
    path.write_bytes(damaged(path.read_bytes(), kind))
    command = ["data-prep", "--reviews", str(path), "--output", f"{tmp_path}/out"]
    refused_command(command, "reviews.damaged", str(path), "Parquet")
    assert not (tmp_path / "out").exists()
    if kind != "damaged page":  # which preflight does not read
        with refused("reviews.damaged", str(path)):
            recognize_inputs((str(path),), ())


def test_tables_without_a_row_are_refused(refused_command, tmp_path):
    pq.write_table(columns().slice(0, 0), tmp_path / "r.parquet")
    command = ["data-prep", "--reviews", f"{tmp_path}/r.parquet", "--output", f"{tmp_path}/out"]
    refused_command(command, "reviews.empty", "r.parquet")


BAD_PRODUCTS = {
    "reviews": (columns(), "metadata.is_reviews", "--reviews"),
    "no title": (pa.table({"asin": ["B1"], "name": ["x"]}), "metadata.missing_field", "'title'"),
    "no item": (pa.table({"id": ["B1"], "title": ["x"]}), "metadata.missing_field", "'item'"),
    "title as a list of numbers": (
        pa.table({"asin": ["B1"], "title": [[1.0]]}),
        "reviews.wrong_type",
        "'title'",
    ),
    "null key": (
        pa.table({"asin": [*(row["asin"] for row in titles(4)), None], "title": ["x"] * 5}),
        "reviews.bad_line",
        "row 5: 'asin' is missing",
    ),
}


@pytest.mark.parametrize("kind", BAD_PRODUCTS)
def test_a_bad_table_of_products_is_refused(refused_command, tmp_path, kind):
    table, code, named = BAD_PRODUCTS[kind]
    reviews, path = write(tmp_path / "r.json", lines(ROWS)), f"{tmp_path}/m.parquet"
    pq.write_table(table, path)
    command = ["data-prep", "--reviews", reviews, "--metadata", path, "--k-core", "1"]
    refused_command([*command, "--output", f"{tmp_path}/out"], code, path, named)
    if code != "reviews.bad_line":
        with refused(code, path, named):
            recognize_inputs((), (path,))
