"""Bad input ends with exit code 2 and one line that names file, line, field and value; nothing is written."""

import gzip
import json

import pytest

from latentrec.cli import main
from latentrec.storage import read_manifest
from tests.fixtures.review_files import grid, lines, review, titles, write


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs data-prep, expects exit code 2, and returns the one line that it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main(["data-prep", "--output", str(tmp_path / "out"), "--k-core", "1", *arguments])
        assert exit_.value.code == 2
        printed = capsys.readouterr().err.strip().splitlines()
        assert len(printed) == 1
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.partial").exists()
        return printed[0]

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
    assert f"{tmp_path}/nowhere.json: no such file or folder" in refused(
        "--reviews", f"{tmp_path}/nowhere.json"
    )


@pytest.mark.parametrize("cut", [20, 200])
def test_truncated_gzip(refused, tmp_path, cut):
    data = gzip.compress(lines(grid()))
    (tmp_path / "reviews.json.gz").write_bytes(data[:-cut])
    message = refused("--reviews", str(tmp_path / "reviews.json.gz"))
    assert "reviews.json.gz: the compressed file ends too early" in message


def test_truncated_zstd(refused, tmp_path):
    path = tmp_path / "reviews.json.zst"
    write(path, lines(grid()))
    path.write_bytes(path.read_bytes()[:-10])
    assert "reviews.json.zst: the compressed file ends too early" in refused("--reviews", str(path))


def test_damaged_gzip(refused, tmp_path):
    data = bytearray(gzip.compress(lines(grid())))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "reviews.json.gz").write_bytes(bytes(data))
    message = refused("--reviews", str(tmp_path / "reviews.json.gz"))
    assert "reviews.json.gz: the compressed data is damaged" in message


def test_archive_is_refused_with_a_cure(refused, tmp_path):
    (tmp_path / "ml.zip").write_bytes(b"PK\x03\x04 whatever")
    assert "ml.zip is a zip archive; unpack it" in refused("--reviews", str(tmp_path / "ml.zip"))


def test_empty_file(refused, tmp_path):
    (tmp_path / "reviews.json").write_bytes(b"")
    assert "reviews.json: the file is empty" in refused("--reviews", str(tmp_path / "reviews.json"))


@pytest.mark.parametrize("line", [b"\x1f", "\u2003".encode(), b"\x85", b"\x1c\n" * 300])
@pytest.mark.parametrize("which", ["--reviews", "--metadata"])
def test_lines_that_text_calls_blank_and_bytes_do_not(refused, tmp_path, which, line):
    path = write(tmp_path / "odd.json", line)
    reviews = write(tmp_path / "reviews.json", lines(grid()))
    given = ("--reviews", path) if which == "--reviews" else ("--reviews", reviews, which, path)
    assert "odd.json: " in refused(*given)


def test_many_blank_lines_before_the_first_are_no_matter(tmp_path):
    from latentrec.data.reading.formats import recognize_reviews
    from latentrec.data.reading.input_files import InputFile, read_blocks, recognized

    path = tmp_path / "reviews.json"
    path.write_bytes(b"\n \r\n" * 300 + lines(grid()))
    blocks = read_blocks(InputFile(str(path), path.stat().st_size))
    assert recognized(blocks, str(path), recognize_reviews)[0].name == "amazon2018"


def test_gzip_of_nothing(refused, tmp_path):
    path = write(tmp_path / "reviews.json.gz", b"")
    assert "reviews.json.gz: the file holds no line" in refused("--reviews", path)


@pytest.mark.parametrize(
    ("number", "bad_line", "says"),
    [
        (3, b'{"reviewerID": "U1", ', "not JSON"),
        (17, b"not json at all", "not JSON"),
        (30, b"[1, 2]", "expected an object in braces"),
        (8, b'{"reviewerID": "U1"} {"reviewerID": "U2"}', "not JSON"),
    ],
)
def test_invalid_json_names_the_line(refused, tmp_path, number, bad_line, says):
    rows = lines(grid()).splitlines()
    rows[number - 1] = bad_line
    path = write(tmp_path / "reviews.json", b"\n".join(rows))
    message = refused("--reviews", path)
    assert f"reviews.json, line {number}: " in message
    assert says in message
    assert "--skip-bad-lines" in message


def test_line_is_right_far_into_a_large_compressed_file(refused, tmp_path):
    many = [review(f"U{n}", f"B{n % 50:09d}", reviewText="x" * 900) for n in range(30_000)]
    data = lines(broken(many, 23_457, overall="five"))
    assert len(data) > 24 << 20, "several blocks are needed"
    message = refused("--reviews", write(tmp_path / "reviews.json.gz", data))
    assert "reviews.json.gz, line 23,457: 'overall' is 'five', expected a number from 1 to 5" in message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"overall": "five"}, "'overall' is 'five', expected a number from 1 to 5"),
        ({"overall": -1.0}, "'overall' is -1.0, expected a number from 1 to 5"),
        ({"overall": 0}, "'overall' is 0, expected a number from 1 to 5"),
        ({"overall": 5.5}, "'overall' is 5.5, expected a number from 1 to 5"),
        ({"overall": float("nan")}, "'overall' is NaN, expected a number from 1 to 5"),
        ({"overall": True}, "'overall' is true, expected a number from 1 to 5"),
        ({"overall": None}, "'overall' is missing"),
        ({"reviewerID": 12}, "'reviewerID' is 12, expected text"),
        ({"reviewerID": ""}, "'reviewerID' is empty"),
        ({"asin": None}, "'asin' is missing"),
        ({"asin": ["B1"]}, "'asin' is [\"B1\"], expected text"),
        ({"unixReviewTime": "2017"}, "'unixReviewTime' is '2017', expected a whole number (UTC seconds"),
        ({"unixReviewTime": -86400}, "'unixReviewTime' is -86400, expected a whole number (UTC seconds"),
        ({"unixReviewTime": 1_500_000_000_000}, "(UTC seconds from 1970 to 2100)"),
        ({"unixReviewTime": 1.5e9 + 0.5}, "expected a whole number"),
    ],
)
def test_wrong_value_names_line_field_and_value(refused, tmp_path, changes, says):
    path = write(tmp_path / "reviews.json", lines(broken(grid(), 12, **changes)))
    message = refused("--reviews", path)
    assert "reviews.json, line 12: " in message
    assert says in message


def test_field_missing_everywhere(refused, tmp_path):
    rows = [{name: value for name, value in row.items() if name != "overall"} for row in grid()]
    message = refused("--reviews", write(tmp_path / "reviews.json", lines(rows)))
    assert "reviews.json, line 1: 'overall' is missing" in message


def test_fields_of_no_known_format(refused, tmp_path):
    message = refused("--reviews", write(tmp_path / "x.json", lines([{"who": "U1", "what": "B1"}] * 3)))
    assert "x.json: the fields what, who are those of no review format" in message


def test_text_of_no_known_format(refused, tmp_path):
    assert "no review format that is known" in refused(
        "--reviews", write(tmp_path / "x.txt", b"hello\nworld\n")
    )


def test_csv_header_without_rating(refused, tmp_path):
    path = write(tmp_path / "x.csv", b"user_id,asin,timestamp,other\nU1,B1,1500000000,1\n")
    assert "x.csv, line 1: no column for 'rating'" in refused("--reviews", path)


def test_csv_line_with_a_field_too_few(refused, tmp_path):
    rows = [b"U%d,B1,5.0,1500000000" % number for number in range(300)]
    rows[250] = b"U250,5.0,1500000000"
    message = refused(
        "--reviews", write(tmp_path / "x.csv", b"user,item,rating,timestamp\n" + b"\n".join(rows))
    )
    assert "x.csv, line 252: 3 fields, expected 4" in message


def test_csv_rating_that_is_no_number(refused, tmp_path):
    rows = [b"U%d,B1,5.0,1500000000" % number for number in range(300)]
    rows[250] = b"U250,B1,good,1500000000"
    message = refused("--reviews", write(tmp_path / "x.csv", b"\n".join(rows)))
    assert "x.csv, line 251: 'rating' is 'good', expected a number from 0.5 to 5" in message


def test_not_utf_8(refused, tmp_path):
    rows = lines(grid()).splitlines()
    rows[4] = rows[4].replace(b"U0", b"U\xff")
    message = refused("--reviews", write(tmp_path / "reviews.json", b"\n".join(rows)))
    assert "reviews.json, line 5: not UTF-8 (byte 0xff at " in message


def test_not_utf_8_in_a_field_that_is_not_read(refused, tmp_path):
    rows = lines([{**row, "reviewText": "caf\u00e9"} for row in grid()])
    rows = rows.replace(b"caf\\u00e9", b"caf\xe9")
    assert "line 1: not UTF-8 (byte 0xe9" in refused("--reviews", write(tmp_path / "reviews.json", rows))


def test_dates_outside_name_the_span_of_the_file(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    message = refused("--reviews", path, "--window-start", "2001-01-01", "--window-end", "2002-01-01")
    assert "no interaction is left after filtering (raw 30, window 0" in message
    assert "the reviews run from 2017-07-14 to 2017-08-28" in message


def test_k_core_that_nobody_meets(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    assert "k_core 0" in refused("--reviews", path, "--k-core", "50")


def test_split_that_comes_out_empty(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    dates = ["--split", "dates", "--valid-start", "2019-01-01", "--test-start", "2020-01-01"]
    assert "data check 'valid_not_empty' failed: valid has 0 samples" in refused("--reviews", path, *dates)


def test_metadata_without_any_matching_item(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    other = write(tmp_path / "meta.json", lines([{"asin": "X1", "title": "Other"}]))
    message = refused("--reviews", path, "--metadata", other)
    assert "meta.json: none of its 1 items occurs in the reviews" in message


def test_metadata_line_that_is_no_object(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    metadata = write(tmp_path / "meta.json", lines(titles()) + b"oops\n")
    message = refused("--reviews", path, "--metadata", metadata)
    assert "meta.json, line 6: neither JSON nor a Python literal" in message


def test_untitled_items_where_titles_are_required(refused, tmp_path):
    path = write(tmp_path / "reviews.json", lines(grid()))
    metadata = write(tmp_path / "meta.json", lines(titles()[:3]))
    message = refused("--reviews", path, "--metadata", metadata, "--title-filter", "none", "--require-titles")
    assert "data check 'all_items_titled' failed: 2 of 5 items have no title" in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "needs either --reviews or --category"),
        (["--reviews", "x", "--category", "Books"], "needs either --reviews or --category"),
        (["--reviews", "x", "--max-history", "0"], "max_history is '0', expected at least 1"),
        (["--reviews", "x", "--window-start", "2017-13-01"], "window_start is '2017-13-01', expected a day"),
        (
            ["--reviews", "x", "--window-start", "2018-01-01", "--window-end", "2018-01-01"],
            "not before window_end",
        ),
        (["--reviews", "x", "--split", "random"], "expected one of temporal, dates, leave_one_out"),
        (["--reviews", "x", "--split", "dates"], "--split dates needs --valid-start and --test-start"),
        (["--reviews", "x", "--test-start", "2018-01-01"], "belong to --split dates"),
        (["--reviews", "x", "--on-no-new-data", "stop"], "needs --previous"),
        (["--category", "Music_Instruments"], "did you mean Musical_Instruments"),
        (["--reviews", "ftp://host/x"], "unknown kind of location"),
    ],
)
def test_configuration_that_cannot_be(refused, arguments, says):
    assert says in refused(*arguments)


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
    message = refused("--reviews", path, "--skip-bad-lines", "--max-bad-share", "0.05")
    assert "2 of 30 lines cannot be read (6.7%), more than --max-bad-share 0.05 allows" in message


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
