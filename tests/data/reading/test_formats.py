"""Every review format gives the same dataset, whatever the file is called and however it is packed."""

import gzip

import pyarrow.parquet as pq
import pytest
import zstandard

from latentrec.data import DataPrepConfig, Dataset, prepare
from latentrec.data.reading.formats import parse_object
from tests.errors import refused
from tests.fixtures.review_files import START, grid, lines, titles, write

PLAIN = {"k_core": 1, "title_filter": "none"}


def tables(directory):
    return {
        name: pq.read_table(directory / f"{name}.parquet")
        for name in ("items", "users", "interactions", "train", "valid", "test")
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    path = write(folder / "reviews.json", lines(grid()))
    manifest = prepare(DataPrepConfig(reviews=(path,), **PLAIN), folder / "expected")
    return tables(folder / "expected"), manifest


def as_2014(row):
    return {**row, "helpful": [0, 1]}


def as_2023(row):
    return {
        "user_id": row["reviewerID"],
        "parent_asin": row["asin"],
        "asin": "B0VARIANT0",
        "rating": row["overall"],
        "timestamp": row["unixReviewTime"] * 1000 + 321,
        "title": "Nice",
        "text": "It is nice",
    }


def delimited(delimiter, order, header=None, scale=1):
    def fields(row):
        named = {
            "user": row["reviewerID"],
            "item": row["asin"],
            "rating": str(row["overall"]),
            "timestamp": str(row["unixReviewTime"] * scale),
        }
        return delimiter.join(named.get(name, "x") for name in order)

    body = "".join(fields(row) + "\n" for row in grid())
    return ((header + "\n" if header else "") + body).encode()


FULL = ("user", "item", "rating", "timestamp")
FILES = {
    "amazon2014": lines(map(as_2014, grid())),
    "amazon2023": lines(map(as_2023, grid())),
    "ratings_csv": delimited(",", FULL),
    "csv with header": delimited(",", FULL, "user_id,parent_asin,rating,timestamp", scale=1000),
    "csv, item first": delimited(",", ("item", "user", "rating", "timestamp")),
    "csv, more columns": delimited(
        ",", ("rating", "other", "item", "timestamp", "user"), "rating,history,asin,timestamp,user_id"
    ),
    "movielens u.data": delimited("\t", FULL),
    "movielens .dat": delimited("::", FULL),
}


@pytest.mark.parametrize("kind", FILES)
def test_format_is_recognized_by_content_and_gives_the_same_rows(tmp_path, expected, kind):
    path = write(tmp_path / "any-name.bin", FILES[kind])
    prepare(DataPrepConfig(reviews=(path,), **PLAIN), tmp_path / "out")
    for name, table in tables(tmp_path / "out").items():
        assert table.equals(expected[0][name]), name


@pytest.mark.parametrize("name", ["reviews.json.gz", "reviews.json.zst"])
def test_compression_is_recognized_by_content(tmp_path, expected, name):
    path = write(tmp_path / name, lines(grid()))
    disguised = tmp_path / "reviews.txt"
    disguised.write_bytes((tmp_path / name).read_bytes())
    manifest = prepare(DataPrepConfig(reviews=(str(disguised),), **PLAIN), tmp_path / "out")
    assert manifest.fingerprint == expected[1].fingerprint
    assert manifest.extra["source"][0]["bytes"] == len((tmp_path / name).read_bytes())
    assert path


def test_gzip_of_several_members_is_read_to_its_end(tmp_path, expected):
    rows = grid()
    data = gzip.compress(lines(rows[:7])) + gzip.compress(lines(rows[7:])) + b"\0" * 16
    (tmp_path / "many.gz").write_bytes(data)
    manifest = prepare(DataPrepConfig(reviews=(str(tmp_path / "many.gz"),), **PLAIN), tmp_path / "out")
    assert manifest.fingerprint == expected[1].fingerprint


def test_zstd_of_several_frames_is_read_to_its_end(tmp_path, expected):
    rows = grid()
    frames = [zstandard.ZstdCompressor().compress(lines(part)) for part in (rows[:7], rows[7:20], rows[20:])]
    (tmp_path / "many.zst").write_bytes(b"".join(frames))
    manifest = prepare(DataPrepConfig(reviews=(str(tmp_path / "many.zst"),), **PLAIN), tmp_path / "out")
    assert manifest.fingerprint == expected[1].fingerprint


def test_several_files_and_folders_are_read_together(tmp_path, expected):
    rows = grid()
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts" / "a.json", lines(rows[:10]))
    write(tmp_path / "parts" / "b.csv", delimited(",", FULL).splitlines(keepends=True)[10] + b"")
    last = write(tmp_path / "rest.json.zst", lines(rows[11:]))
    manifest = prepare(DataPrepConfig(reviews=(str(tmp_path / "parts"), last), **PLAIN), tmp_path / "out")
    assert manifest.fingerprint == expected[1].fingerprint
    assert manifest.extra["formats"] == ["amazon2018", "ratings_csv"]


def test_byte_order_mark_blank_lines_and_carriage_returns_are_no_matter(tmp_path, expected):
    data = b"\xef\xbb\xbf" + lines(grid()).replace(b"\n", b"\r\n") + b"\r\n  \n"
    path = write(tmp_path / "reviews.json", data)
    manifest = prepare(DataPrepConfig(reviews=(path,), **PLAIN), tmp_path / "out")
    assert manifest.fingerprint == expected[1].fingerprint


METADATA = {
    "2018": lines(titles(brand="Acme", category=["A &amp; B", "C"], description=["one", "two"])),
    "2014 literals": "".join(
        f"{{'asin': '{row['asin']}', 'title': '{row['title']}', 'brand': 'Acme', 'description': 'one two', "
        "'categories': [['A &amp; B', 'C']]}\n"
        for row in titles()
    ).encode(),
    "2023": lines(
        {
            "parent_asin": row["asin"], "title": row["title"], "store": "Acme", "main_category": "X",
            "categories": ["A & B", "C"], "description": ["one", "two"], "details": {"Brand": "Other"},
        }
        for row in titles()
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", METADATA)
def test_metadata_of_every_edition_gives_the_same_items(tmp_path, kind):
    reviews = write(tmp_path / "reviews.json", lines(grid()))
    metadata = write(tmp_path / "meta.anything", METADATA[kind])
    prepare(DataPrepConfig(reviews=(reviews,), metadata=(metadata,), k_core=1), tmp_path / "out")
    items = Dataset(tmp_path / "out").items
    assert items["title"].to_pylist() == [f"Thing {item}" for item in range(5)]
    assert set(items["brand"].to_pylist()) == {"Acme"}
    assert set(items["description"].to_pylist()) == {"one two"}
    assert set(items["categories"].to_pylist()) == {"A & B > C"}


def test_literals_are_parsed_and_never_executed(tmp_path):
    reviews = write(tmp_path / "reviews.json", lines(grid()))
    trap = tmp_path / "executed"
    rows = METADATA["2014 literals"] + f"{{'asin': open({str(trap)!r}, 'w').name}}\n".encode()
    metadata = write(tmp_path / "meta.json", rows)
    with refused("reviews.bad_line", "meta.json, line 6"):
        prepare(DataPrepConfig(reviews=(reviews,), metadata=(metadata,), k_core=1), tmp_path / "out")
    assert not trap.exists()


@pytest.mark.parametrize("key", ["[1]", "{2}", "{'a': 1}"])
def test_a_literal_with_a_key_that_no_dictionary_takes_is_no_object(tmp_path, key):
    """Found by fuzzing: Python's own parser of literals raises TypeError there."""
    assert parse_object(f"{{{key}: 'x'}}") is None
    reviews = write(tmp_path / "reviews.json", lines(grid()) + f"{{{key}: 'x'}}\n".encode())
    with refused("reviews.bad_line", "reviews.json, line 31"):
        prepare(DataPrepConfig(reviews=(reviews,), k_core=1), tmp_path / "out")


MOVIES = {
    "u.item": "".join(
        f"{item}|Am\u00e9lie {item} (2001)|01-Jan-2001||http://x|0|0|0|0|0|1|0|0|1|0|0|0|0|0|0|0|0|0|0\n"
        for item in range(5)
    ).encode("latin-1"),
    "movies.dat": "".join(f"{item}::Am\u00e9lie {item} (2001)::Comedy|Drama\n" for item in range(5)).encode(
        "latin-1"
    ),
    "movies.csv": (
        "movieId,title,genres\n"
        + "".join(f'{item},"Am\u00e9lie {item} (2001)",Comedy|Drama\n' for item in range(5))
    ).encode(),
}


@pytest.mark.parametrize("kind", MOVIES)
def test_movielens_items_have_titles_and_genres(tmp_path, kind):
    rows = [
        f"{user}\t{(user + step) % 5}\t{1 + step % 5}\t{START + step}\n"
        for user in range(6)
        for step in range(5)
    ]
    reviews = write(tmp_path / "u.data", "".join(rows).encode())
    metadata = write(tmp_path / kind, MOVIES[kind])
    manifest = prepare(DataPrepConfig(reviews=(reviews,), metadata=(metadata,), k_core=1), tmp_path / "out")
    items = Dataset(tmp_path / "out").items
    assert items["title"].to_pylist() == [f"Amélie {item} (2001)" for item in range(5)]
    assert items["categories"].to_pylist() == ["Comedy > Drama"] * 5
    assert manifest.extra["has_titles"]
