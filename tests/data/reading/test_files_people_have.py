"""Files that people have or send: read rightly, or refused in one line with the cure; never a traceback."""
# ruff: noqa: E501

import gzip
import json

import pyarrow.parquet as pq
import pytest

from latentrec.cli import main
from latentrec.data import DataPrepConfig, prepare
from latentrec.steps.inputs import recognize_inputs
from tests.errors import refused
from tests.fixtures.review_files import grid, lines, review, titles, write

ROWS = grid()
ODD = {  # one odd line below the grid's thirty: what the message says, or None where it is read
    "trailing comma": (b'{"reviewerID": "U1", "asin": "B1", "overall": 5, "unixReviewTime": 1500000000},', "not JSON"),
    "two objects": (2 * b'{"reviewerID": "U1", "asin": "B1", "overall": 5, "unixReviewTime": 1500000000}', "not JSON"),
    "field twice": (
        b'{"reviewerID": "U1", "reviewerID": "U2", "asin": "B1", "overall": 5, "unixReviewTime": 1500000000}',
        "'reviewerID'",
    ),
    "NaN": (b'{"reviewerID": "U1", "asin": "B1", "overall": NaN, "unixReviewTime": 1500000000}', "'overall' is NaN"),
    "true": (b'{"reviewerID": "U1", "asin": "B1", "overall": true, "unixReviewTime": 1500000000}', "'overall' is true"),
    "10^400 stars": (
        b'{"reviewerID": "U1", "asin": "B1", "overall": 1' + b"0" * 400 + b', "unixReviewTime": 1500000000}',
        "'overall' is a whole number of 400 digits",
    ),
    "10^400 seconds": (
        b'{"reviewerID": "U1", "asin": "B1", "overall": 5, "unixReviewTime": 1' + b"0" * 400 + b"}",
        "'unixReviewTime' is a whole number of 400 digits",
    ),
    "5000 digits": (
        b'{"reviewerID": "U1", "asin": "B1", "overall": 5, "unixReviewTime": ' + b"1" * 5000 + b"}",
        "not JSON",
    ),
    "2^63": (
        b'{"reviewerID": "U1", "asin": "B1", "overall": 5, "unixReviewTime": 9223372036854775808}',
        "'unixReviewTime' is 9223372036854775808",
    ),
    "half an emoji in a key": (
        b'{"reviewerID": "U\\ud83d", "asin": "B1", "overall": 5, "unixReviewTime": 1500000000}',
        "U+D83D",
    ),
    "zero byte in a key": (
        b'{"reviewerID": "U\\u0000", "asin": "B1", "overall": 5, "unixReviewTime": 1500000000}',
        "U+0000",
    ),
    "carriage return inside": (
        b'{"reviewerID": "U1",\r"asin": "B1"}\r{"overall": 5}',
        "not JSON",
    ),
    "nested too deeply": (b"[" * 100_000, "nested too deeply"),
    "float time": (b'{"reviewerID": "U1", "asin": "B1", "overall": 5, "unixReviewTime": 1500000000.0}', None),
    "half an emoji in a text": (
        b'{"reviewerID": "U1", "asin": "B1", "overall": 5, "unixReviewTime": 1500000000, "reviewText": "\\ud83c"}',
        None,
    ),
    "deep field that is not read": (
        b'{"reviewerID": "U1", "asin": "B1", "overall": 5, "unixReviewTime": 1500000000, "x": '
        + b"[" * 500 + b"]" * 500 + b"}",
        None,
    ),
}  # fmt: skip


def run(capsys, tmp_path, *arguments) -> tuple[int, str, str]:
    """Exit code, standard output and the last line of standard error of data-prep."""
    code = 0
    try:
        main(
            [
                "data-prep",
                "--output",
                str(tmp_path / "out"),
                "--k-core",
                "1",
                "--max-bad-share",
                "0.5",
                *arguments,
            ]
        )
    except SystemExit as exit_:
        code = exit_.code
    printed = capsys.readouterr()
    return code, printed.out, (printed.err.strip().splitlines() or [""])[-1]


def raw_events(out: str) -> int:
    return int(next(line for line in out.splitlines() if line.startswith("raw")).split()[1].replace(",", ""))


@pytest.mark.parametrize("task", ["next_item", "rating"])
@pytest.mark.parametrize("kind", ODD)
def test_odd_line_is_read_or_named_and_can_be_skipped(capsys, tmp_path, kind, task):
    line, message = ODD[kind]
    path = write(tmp_path / "reviews.json", lines(ROWS) + line + b"\n")
    code, out, error = run(capsys, tmp_path, "--reviews", path, "--task", task)
    if message is None:
        assert (code, raw_events(out)) == (0, 31), error
        return
    assert code == 2
    assert f"{path}, line 31: " in error
    assert message in error
    assert not (tmp_path / "out").exists()
    code, out, error = run(capsys, tmp_path, "--reviews", path, "--task", task, "--skip-bad-lines")
    assert (code, raw_events(out)) == (0, 30), error


CSV = b"".join(b"%s,%s,%.1f,%d\n" % (r["reviewerID"].encode(), r["asin"].encode(), r["overall"], r["unixReviewTime"]) for r in ROWS)  # fmt: skip
ODD_CSV = {
    "five fields": (b"U1,B000000001,5,1500000000,x", "5 fields"),
    "nan": (b"U1,B000000001,nan,1500000000", "'rating' is NaN"),
    "10^400": (b"U1,B000000001,1" + b"0" * 400 + b",1500000000", "'rating' is"),
    "10^400 seconds": (b"U1,B000000001,5,1" + b"0" * 400, "'timestamp' is"),
    "underscore": (b"U1,B000000001,5,1_500_000_000", "'timestamp' is"),
    "zero byte": (b"U\0,B000000001,5,1500000000", "U+0000"),
    "open quote": (b'"U1,B000000001,5,1500000000', "quote"),
    "carriage return": (b"U1,\rB000000001,5,1500000000", "line 31"),
}


@pytest.mark.parametrize("kind", ODD_CSV)
def test_odd_line_of_a_csv_is_named_and_can_be_skipped(capsys, tmp_path, kind):
    line, message = ODD_CSV[kind]
    path = write(tmp_path / "ratings.csv", CSV + line + b"\n")
    code, _, error = run(capsys, tmp_path, "--reviews", path)
    assert code == 2
    assert f"{path}, line 31: " in error
    assert message in error
    code, out, error = run(capsys, tmp_path, "--reviews", path, "--skip-bad-lines")
    assert (code, raw_events(out)) == (0, 30), error


def test_line_break_inside_a_quoted_field_spoils_both_halves(capsys, tmp_path):
    path = write(tmp_path / "ratings.csv", CSV + b'"U\n9",B000000001,5,1500000000\n')
    assert run(capsys, tmp_path, "--reviews", path)[0] == 2
    code, out, _ = run(capsys, tmp_path, "--reviews", path, "--skip-bad-lines")
    assert (code, raw_events(out)) == (0, 30)


META_ODD = {
    "cut": (b'{"asin": "B0000000', "JSON"),
    "not UTF-8": (b'{"asin": "B000000001", "title": "\xff"}', "0xff"),
    "nested": (b'{"asin": "B000000001", "title": ' + b"[" * 100_000, "nested too deeply"),
    "nested literal": (b"{'asin': 'B000000001', 'title': " + b"(" * 5000, "neither JSON"),
    "half an emoji in the key": (b'{"asin": "B\\udfff", "title": "x"}', "no key"),
    "half an emoji": (b'{"asin": "B000000001", "title": "Oak \\ud83c", "brand": "\\udc00"}', None),
    "huge number": (b'{"asin": "B000000001", "title": "x", "price": 1' + b"0" * 400 + b"}", None),
    "title is an object": (b'{"asin": "B000000001", "title": {"a": 1}}', None),
    "title is null": (b'{"asin": "B000000001", "title": null}', None),
}


@pytest.mark.parametrize("kind", META_ODD)
def test_odd_line_of_metadata_is_read_or_named(capsys, tmp_path, kind):
    line, message = META_ODD[kind]
    reviews = write(tmp_path / "reviews.json", lines(ROWS))
    path = write(tmp_path / "meta.json", lines(titles()) + line + b"\n")
    code, _, error = run(capsys, tmp_path, "--reviews", reviews, "--metadata", path)
    if message is None:
        assert code == 0, error
        for name in ("title", "brand"):
            table = pq.read_table(tmp_path / "out" / "items.parquet")
            assert name not in table.column_names or "\ud83c" not in str(table[name].to_pylist())
        return
    assert code == 2
    assert f"{path}, line 6: " in error
    assert message in error
    assert run(capsys, tmp_path, "--reviews", reviews, "--metadata", path, "--skip-bad-lines")[0] == 0


SAME = {
    "array on one line": json.dumps(ROWS).encode(),
    "array over many lines": json.dumps(ROWS, indent=2).encode(),
    "array of lines": b"[\n" + b",\n".join(json.dumps(row).encode() for row in ROWS) + b"\n]\n",
    "blank first lines": b"\n  \n" + lines(ROWS),
    "byte order mark": b"\xef\xbb\xbf" + lines(ROWS),
    "carriage returns alone": lines(ROWS).replace(b"\n", b"\r"),
    "carriage returns too": lines(ROWS).replace(b"\n", b"\r\n"),
    "csv": CSV,
    "csv of carriage returns": CSV.replace(b"\n", b"\r"),
    "semicolons": CSV.replace(b",", b";"),
    "spaces, as in some copies of ML-100K": CSV.replace(b",", b"   "),
    "tabs": CSV.replace(b",", b"\t"),
    "2023 in seconds": lines(
        {"user_id": r["reviewerID"], "parent_asin": r["asin"], "rating": r["overall"], "timestamp": r["unixReviewTime"]}
        for r in ROWS
    ),
    "2018 in milliseconds": lines({**row, "unixReviewTime": row["unixReviewTime"] * 1000} for row in ROWS),
    "whole numbers as floats": lines({**row, "unixReviewTime": float(row["unixReviewTime"])} for row in ROWS),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", SAME)
def test_what_can_be_read_with_certainty_is_read(tmp_path, expected, kind, packed):
    path = write(tmp_path / ("data.gz" if packed else "data"), SAME[kind])
    recognize_inputs((path,), ())
    assert prepare(DataPrepConfig(reviews=(path,), k_core=1), tmp_path / "out").fingerprint == expected


def test_large_array_is_read_in_pieces(tmp_path):
    rows = [
        review(f"U{n % 500}", f"B{n % 300:09d}", reviewText='\u00e9 [ } \\ " ' * 20) for n in range(20_000)
    ]
    one = write(tmp_path / "array.json.gz", json.dumps(rows, ensure_ascii=False).encode())
    two = write(tmp_path / "lines.json", lines(rows))

    def make(path: str, name: str):
        return prepare(DataPrepConfig(reviews=(path,), k_core=2, task="rating"), tmp_path / name)

    assert make(one, "one").fingerprint == make(two, "two").fingerprint


NOT_READ = {
    "zip": (b"PK\x03\x04" + b"x" * 50, "reviews.not_text", "zip"),
    "Parquet": (b"PAR1" + b"\0" * 50, "reviews.damaged", "Parquet"),
    "UTF-16": (("\ufeff" + CSV.decode()).encode("utf-16-le"), "reviews.not_text", "iconv"),
    "UTF-16 without mark": (CSV.decode().encode("utf-16-le"), "reviews.not_text", "UTF-16"),
    "binary": (bytes(range(256)) * 50, "reviews.unknown_format", "MovieLens"),
    "web page": (b"<!DOCTYPE html><html><body>Log in", "reviews.not_text", "web page"),
    "SQLite": (b"SQLite format 3\0" + b"\0" * 100, "reviews.not_text", "SQLite"),
    "twice packed": (gzip.compress(lines(ROWS)), "reviews.compressed_twice", "gunzip"),
    "pretty objects": (b"\n".join(json.dumps(row, indent=1).encode() for row in ROWS), "reviews.object_over_lines", "jq -c"),
    "metadata": (lines(titles()), "reviews.unknown_format", "--metadata"),
    "broken array": (json.dumps(ROWS).encode()[:-100], "reviews.damaged", "element 29"),
    "array with a fault": (json.dumps(ROWS[:5]).encode()[:-1] + b", {'x': 1}" + json.dumps(ROWS).encode(), "reviews.damaged", "element 6"),
    "endless nesting": (b'[{"a":' + b"[" * 100_000, "reviews.damaged", "element 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_is_not_read_is_refused_with_the_cure_by_preflight_too(refused_command, tmp_path, kind):
    data, error_code, named = NOT_READ[kind]
    path = write(tmp_path / ("reviews.gz" if kind == "twice packed" else "reviews"), data)
    output = str(tmp_path / "dataset")
    refused_command(["data-prep", "--reviews", path, "--output", output], error_code, path, named)
    if kind not in ("array with a fault", "broken array"):  # below the first lines
        with refused(error_code, path, named):
            recognize_inputs((path,), ())


def test_reviews_given_as_metadata_are_refused(refused_command, tmp_path):
    path, other = write(tmp_path / "reviews.json", lines(ROWS)), write(tmp_path / "x", lines(ROWS))
    command = ["data-prep", "--reviews", path, "--metadata", other, "--output", str(tmp_path / "dataset")]
    refused_command(command, "metadata.is_reviews", other, "--reviews")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ratings.dat", b"".join(b"%d::%d::5::978300760\n" % (n, n + 100) for n in range(40))),
        ("users.dat", b"".join(b"%d::F::25::10::48067\n" % n for n in range(40))),
    ],
)
def test_other_files_of_movielens_given_as_metadata_are_refused(tmp_path, name, content):
    """They have the items' delimiter: every item of that number had "F" or a number for a title."""
    (tmp_path / name).write_bytes(content)
    with refused("metadata.unknown_format", name, "--metadata", "--reviews"):
        recognize_inputs((), (str(tmp_path / name),))


def test_one_odd_line_does_not_hide_movielens_items(tmp_path):
    rows = [b"%d::Film %d (1995)::Drama|War" % (n, n) for n in range(40)]
    (tmp_path / "movies.dat").write_bytes(b"\n".join([b"cut off", *rows]))
    assert recognize_inputs((), (str(tmp_path / "movies.dat"),)) == ["movielens items"]


def test_one_odd_line_does_not_swap_users_and_items(tmp_path):
    swapped = b"".join(
        b"%s,%s,5,%d\n" % (r["asin"].encode(), r["reviewerID"].encode(), r["unixReviewTime"]) for r in ROWS
    )
    path = write(tmp_path / "item_first.csv", b"ODD,U9,5,1500000000\n" + swapped)
    prepare(DataPrepConfig(reviews=(path,), k_core=1), tmp_path / "out")
    users = pq.read_table(tmp_path / "out" / "users.parquet")["user_key"].to_pylist()
    assert sorted(users) == [*(f"U{number}" for number in range(6)), "U9"]
    half = b"".join(
        b"%s,x%d,5,1500000000\n" % (b"B00000000%d" % n if n % 2 else b"user%d" % n, n) for n in range(8)
    )
    with refused("reviews.unknown_format"):
        recognize_inputs((write(tmp_path / "half.csv", half),), ())


def test_unknown_times_are_told(tmp_path):
    path = write(tmp_path / "r.json", lines([*ROWS, {**review(), "unixReviewTime": 0}]))
    manifest = prepare(DataPrepConfig(reviews=(path,), k_core=1), tmp_path / "out")
    told = {check["name"]: check for check in manifest.extra["checks"]}["plausible_times"]
    assert told["detail"].startswith("1 of 31 events are from before 1995")
