"""Bad input ends with exit code 2 and one line: code, file, line, field and value; nothing is written."""

import gzip
import json

import pytest

from latentrec.cli import main
from latentrec.storage import read_manifest
from tests.fixtures.review_files import grid, lines, review, titles, write


@pytest.fixture
def refused(tmp_path, refused_command):
    """Runs data-prep, which must refuse with this code and leave nothing."""

    def run(code, named, *arguments):
        named = [named] if isinstance(named, str) else named
        refused_command(
            ["data-prep", "--output", f"{tmp_path}/out", "--k-core", "1", *arguments], code, *named
        )
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.partial").exists()

    return run


def broken(rows, number, **changes):
    """The rows with fields of line ``number`` changed (``None`` removes one)."""
    rows = [dict(row) for row in rows]
    for name, value in changes.items():
        if value is None:
            del rows[number - 1][name]
        else:
            rows[number - 1][name] = value
    return rows


def test_missing_path(refused, tmp_path):
    refused("storage.not_found", f"{tmp_path}/nowhere.json: ", "--reviews", f"{tmp_path}/nowhere.json")


@pytest.mark.parametrize("cut", [20, 200])
def test_truncated_gzip(refused, tmp_path, cut):
    data = gzip.compress(lines(grid()))
    (tmp_path / "reviews.json.gz").write_bytes(data[:-cut])
    refused("reviews.cut_off", "reviews.json.gz: ", "--reviews", str(tmp_path / "reviews.json.gz"))


def test_truncated_zstd(refused, tmp_path):
    path = tmp_path / "reviews.json.zst"
    write(path, lines(grid()))
    path.write_bytes(path.read_bytes()[:-10])
    refused("reviews.cut_off", "reviews.json.zst: ", "--reviews", str(path))


def test_damaged_gzip(refused, tmp_path):
    data = bytearray(gzip.compress(lines(grid())))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "reviews.json.gz").write_bytes(bytes(data))
    refused("reviews.damaged", "reviews.json.gz: ", "--reviews", str(tmp_path / "reviews.json.gz"))


def test_archive_is_refused_with_a_cure(refused, tmp_path):
    (tmp_path / "ml.zip").write_bytes(b"PK\x03\x04 whatever")
    refused("reviews.not_text", ("ml.zip", "unpack"), "--reviews", str(tmp_path / "ml.zip"))


def test_empty_file(refused, tmp_path):
    (tmp_path / "reviews.json").write_bytes(b"")
    refused("reviews.empty", "reviews.json: ", "--reviews", str(tmp_path / "reviews.json"))


@pytest.mark.parametrize("line", [b"\x1f", "\u2003".encode(), b"\x85", b"\x1c\n" * 300])
@pytest.mark.parametrize(
    ("which", "code"), [("--reviews", "reviews.unknown_format"), ("--metadata", "metadata.unknown_format")]
)
def test_lines_that_text_calls_blank_and_bytes_do_not(refused, tmp_path, which, code, line):
    path = write(tmp_path / "odd.json", line)
    reviews = write(tmp_path / "reviews.json", lines(grid()))
    given = ("--reviews", path) if which == "--reviews" else ("--reviews", reviews, which, path)
    refused(code, "odd.json: ", *given)


def test_many_blank_lines_before_the_first_are_no_matter(tmp_path):
    from latentrec.data.reading.formats import recognize_reviews
    from latentrec.data.reading.input_files import InputFile, read_blocks, recognized

    path = tmp_path / "reviews.json"
    path.write_bytes(b"\n \r\n" * 300 + lines(grid()))
    blocks = read_blocks(InputFile(str(path), path.stat().st_size))
    assert recognized(blocks, str(path), recognize_reviews)[0].name == "amazon2018"


def test_gzip_of_nothing(refused, tmp_path):
    path = write(tmp_path / "reviews.json.gz", b"")
    refused("reviews.empty", "reviews.json.gz: ", "--reviews", path)


@pytest.mark.parametrize(
    ("number", "bad_line"),
    [
        (3, b'{"reviewerID": "U1", '),
        (17, b"not json at all"),
        (30, b"[1, 2]"),
        (8, b'{"reviewerID": "U1"} {"reviewerID": "U2"}'),
    ],
)
def test_invalid_json_names_the_line(refused, tmp_path, number, bad_line):
    rows = lines(grid()).splitlines()
    rows[number - 1] = bad_line
    path = write(tmp_path / "reviews.json", b"\n".join(rows))
    named = (f"reviews.json, line {number}: ", "--skip-bad-lines")
    refused("reviews.bad_line", named, "--reviews", path)


def test_line_is_right_far_into_a_large_compressed_file(refused, tmp_path):
    many = [review(f"U{n}", f"B{n % 50:09d}", reviewText="x" * 900) for n in range(30_000)]
    data = lines(broken(many, 23_457, overall="five"))
    assert len(data) > 24 << 20, "several blocks are needed"
    named = ("reviews.json.gz, line 23,457: ", "'overall'", "'five'", "1 to 5")
    refused("reviews.bad_line", named, "--reviews", write(tmp_path / "reviews.json.gz", data))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"overall": "five"}, ("'overall'", "'five'", "1 to 5")),
        ({"overall": -1.0}, ("'overall'", "-1.0")),
        ({"overall": 0}, ("'overall'", " 0,")),
        ({"overall": 5.5}, ("'overall'", "5.5")),
        ({"overall": float("nan")}, ("'overall'", "NaN")),
        ({"overall": True}, ("'overall'", "true")),
        ({"overall": None}, ("'overall'",)),
        ({"reviewerID": 12}, ("'reviewerID'", "12")),
        ({"reviewerID": ""}, ("'reviewerID'",)),
        ({"asin": None}, ("'asin'",)),
        ({"asin": ["B1"]}, ("'asin'", '["B1"]')),
        ({"unixReviewTime": "2017"}, ("'unixReviewTime'", "'2017'", "UTC seconds")),
        ({"unixReviewTime": -86400}, ("'unixReviewTime'", "-86400")),
        ({"unixReviewTime": 1_500_000_000_000}, ("1500000000000", "1970 to 2100")),
        ({"unixReviewTime": 1.5e9 + 0.5}, ("'unixReviewTime'", "1500000000.5")),
    ],
)
def test_wrong_value_names_line_field_and_value(refused, tmp_path, changes, named):
    path = write(tmp_path / "reviews.json", lines(broken(grid(), 12, **changes)))
    refused("reviews.bad_line", ("reviews.json, line 12: ", *named), "--reviews", path)


def test_field_missing_everywhere(refused, tmp_path):
    rows = [{name: value for name, value in row.items() if name != "overall"} for row in grid()]
    path = write(tmp_path / "reviews.json", lines(rows))
    refused("reviews.missing_field", ("reviews.json, line 1: ", "'overall'"), "--reviews", path)


def test_fields_of_no_known_format(refused, tmp_path):
    path = write(tmp_path / "x.json", lines([{"who": "U1", "what": "B1"}] * 3))
    refused("reviews.unknown_format", ("x.json: ", "what, who"), "--reviews", path)


def test_text_of_no_known_format(refused, tmp_path):
    refused("reviews.unknown_format", "x.txt", "--reviews", write(tmp_path / "x.txt", b"hello\nworld\n"))


def test_csv_header_without_rating(refused, tmp_path):
    path = write(tmp_path / "x.csv", b"user_id,asin,timestamp,other\nU1,B1,1500000000,1\n")
    refused("reviews.missing_field", ("x.csv, line 1: ", "'rating'"), "--reviews", path)


def test_csv_line_with_a_field_too_few(refused, tmp_path):
    rows = [b"U%d,B1,5.0,1500000000" % number for number in range(300)]
    rows[250] = b"U250,5.0,1500000000"
    path = write(tmp_path / "x.csv", b"user,item,rating,timestamp\n" + b"\n".join(rows))
    refused("reviews.bad_line", ("x.csv, line 252: ", "3 fields", "4"), "--reviews", path)


def test_csv_rating_that_is_no_number(refused, tmp_path):
    rows = [b"U%d,B1,5.0,1500000000" % number for number in range(300)]
    rows[250] = b"U250,B1,good,1500000000"
    named = ("x.csv, line 251: ", "'rating'", "'good'", "0.5 to 5")
    refused("reviews.bad_line", named, "--reviews", write(tmp_path / "x.csv", b"\n".join(rows)))


def test_not_utf_8(refused, tmp_path):
    rows = lines(grid()).splitlines()
    rows[4] = rows[4].replace(b"U0", b"U\xff")
    path = write(tmp_path / "reviews.json", b"\n".join(rows))
    refused("reviews.bad_line", ("reviews.json, line 5: ", "UTF-8", "0xff"), "--reviews", path)


def test_not_utf_8_in_a_field_that_is_not_read(refused, tmp_path):
    rows = lines([{**row, "reviewText": "caf\u00e9"} for row in grid()])
    rows = rows.replace(b"caf\\u00e9", b"caf\xe9")
    path = write(tmp_path / "reviews.json", rows)
    refused("reviews.bad_line", ("line 1: ", "UTF-8", "0xe9"), "--reviews", path)


def test_dates_outside_name_the_span_of_the_file(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    window = ("--window-start", "2001-01-01", "--window-end", "2002-01-01")
    named = ("raw 30, window 0", "2017-07-14 to 2017-08-28")
    refused("dataset.nothing_left", named, "--reviews", path, *window)


def test_k_core_that_nobody_meets(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    refused("dataset.nothing_left", "k_core 0", "--reviews", path, "--k-core", "50")


def test_split_that_comes_out_empty(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    dates = ["--split", "dates", "--valid-start", "2019-01-01", "--test-start", "2020-01-01"]
    refused("dataset.check_failed", "'valid_not_empty'", "--reviews", path, *dates)


def test_metadata_without_any_matching_item(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    other = write(tmp_path / "meta.json", lines([{"asin": "X1", "title": "Other"}]))
    refused("metadata.no_common_item", "meta.json: ", "--reviews", path, "--metadata", other)


def test_metadata_line_that_is_no_object(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    metadata = write(tmp_path / "meta.json", lines(titles()) + b"oops\n")
    refused("reviews.bad_line", "meta.json, line 6: ", "--reviews", path, "--metadata", metadata)


def test_untitled_items_where_titles_are_required(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    metadata = write(tmp_path / "meta.json", lines(titles()[:3]))
    given = ("--metadata", metadata, "--title-filter", "none", "--require-titles")
    refused("dataset.check_failed", ("'all_items_titled'", "2 of 5"), "--reviews", path, *given)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], ("--reviews", "--category")),
        (["--reviews", "x", "--category", "Books"], ("--reviews", "--category")),
        (["--reviews", "x", "--max-history", "0"], ("max_history", "'0'", "at least 1")),
        (["--reviews", "x", "--window-start", "2017-13-01"], ("window_start", "'2017-13-01'")),
        (
            ["--reviews", "x", "--window-start", "2018-01-01", "--window-end", "2018-01-01"],
            ("window_start", "window_end"),
        ),
        (["--reviews", "x", "--split", "random"], ("split", "temporal, dates, leave_one_out")),
        (["--reviews", "x", "--split", "dates"], ("--split dates", "--valid-start", "--test-start")),
        (["--reviews", "x", "--test-start", "2018-01-01"], ("--split dates",)),
        (["--reviews", "x", "--on-no-new-data", "stop"], ("--previous",)),
    ],
)
def test_configuration_that_cannot_be(refused, arguments, named):
    refused("config.invalid", named, *arguments)


def test_unknown_category_is_answered_with_a_like_one(refused):
    refused("download.unknown_category", "Musical_Instruments", "--category", "Music_Instruments")


def test_unknown_kind_of_location(refused):
    refused("storage.bad_uri", "ftp://host/x", "--reviews", "ftp://host/x")


def test_bad_lines_are_skipped_and_counted_when_asked(tmp_path):
    rows = lines(broken(grid(40), 12, overall="five")).splitlines()
    rows.insert(100, b"garbage")
    rows.insert(
        150, b'{"reviewerID": "U1", "reviewerID": "U2", "asin": "B1", "overall": 5, "unixReviewTime": 1}'
    )
    path = write(tmp_path / "reviews.json", b"\n".join(rows))
    flags = f"--reviews {path} --output {tmp_path}/out --k-core 1 --skip-bad-lines --max-bad-share 0.05"
    main(["data-prep", *flags.split()])
    manifest = read_manifest(tmp_path / "out", "dataset")
    assert manifest.counts["raw"] == 199
    assert manifest.counts["bad_lines"] == 3
    examples = manifest.extra["bad_line_examples"]
    assert [example.split(": ")[0].rsplit(", ", 1)[1] for example in examples] == [
        "line 12",
        "line 101",
        "line 151",
    ]
    assert "3 lines could not be read" in (tmp_path / "out" / "report.html").read_text()


def test_too_many_bad_lines_fail_although_they_may_be_skipped(refused, tmp_path):
    rows = lines(grid()).splitlines()
    rows[3] = rows[9] = b"garbage"
    path = write(tmp_path / "reviews.json", b"\n".join(rows))
    named = ("2 of 30", "6.7%", "--max-bad-share 0.05")
    skipping = ("--skip-bad-lines", "--max-bad-share", "0.05")
    refused("reviews.too_many_bad_lines", named, "--reviews", path, *skipping)


def test_a_failed_run_leaves_the_dataset_of_the_run_before(tmp_path, capsys):
    path = write(tmp_path / "reviews.json", lines(grid()))
    main(["data-prep", "--reviews", path, "--output", str(tmp_path / "out"), "--k-core", "1"])
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["kind"] == "dataset"
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    for reviews in (write(tmp_path / "bad.json", b"{"), str(tmp_path / "reviewz.json")):
        with pytest.raises(SystemExit):
            main(["data-prep", "--reviews", reviews, "--output", str(tmp_path / "out"), "--k-core", "1"])
        assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert "error:" in capsys.readouterr().err
