"""Which files an input names, what of them is read at most, and that they stay as preflight saw them."""

import gzip
import importlib
import time

import pytest
import zstandard

from latentrec.data import DataPrepConfig, prepare
from latentrec.data.reading.byte_streams import text_pieces
from latentrec.data.reading.input_files import InputFile, find_inputs, fingerprint_inputs, read_blocks
from latentrec.storage import store_for
from tests.errors import refused
from tests.fixtures.review_files import grid, lines, write

ROWS = grid()


class TestBounds:
    """What inflates without end, or has no line's end, stops early."""

    def test_bomb_of_blank_lines(self, tmp_path, monkeypatch):
        monkeypatch.setattr("latentrec.data.reading.byte_streams._RATIO_FROM", 1 << 24)
        for pack in (gzip.compress, zstandard.ZstdCompressor().compress):
            path = write(tmp_path / "raw", pack(b"\n" * (1 << 26)))
            with refused("reviews.inflates_too_much"):
                list(read_blocks(InputFile(path, 0)))

    def test_line_without_end(self, tmp_path):
        path = tmp_path / "x.gz"
        path.write_bytes(gzip.compress(lines(ROWS) + b"x" * (64 << 20)))
        began = time.monotonic()
        with refused("reviews.long_line", "30", "line", "16"):
            list(read_blocks(InputFile(str(path), 0)))
        assert time.monotonic() - began < 20

    def test_pieces_are_small_whatever_the_packing(self, tmp_path):
        for pack in (gzip.compress, zstandard.ZstdCompressor().compress):
            path = tmp_path / "x"
            path.write_bytes(pack(b"0" * (256 << 20)))
            with path.open("rb") as stream:
                sizes = [len(piece) for piece, _ in text_pieces(stream, "x", lambda *_: None)]
            assert sum(sizes) == 256 << 20
            assert max(sizes) <= 128 << 20

    def test_window_of_zstd_is_bounded(self, tmp_path):
        big = zstandard.ZstdCompressionParameters(window_log=28)
        frame = zstandard.ZstdCompressor(compression_params=big).compressobj()
        path = tmp_path / "x.zst"
        path.write_bytes(frame.compress(b"x\n" * (1 << 27)) + frame.flush())
        with refused("reviews.window_too_large", "--long"):
            list(read_blocks(InputFile(str(path), 0)))


class TestLister:
    """One lister for data preparation, preflight and fingerprints."""

    @pytest.fixture(params=["local", "gs", "relative"])
    def place(self, request, tmp_path, monkeypatch) -> str:
        if request.param == "gs":
            request.getfixturevalue("gcs_server")
            place = "gs://bucket/reviews"
        else:
            monkeypatch.chdir(tmp_path)
            place = str(tmp_path / "reviews") if request.param == "local" else "reviews"
        rows = ROWS
        for name, part in (("part-0.json", rows[:11]), ("part-1.json", rows[11:])):
            store_for(place).write_bytes(f"{place}/{name}", lines(part))
        for name in (".DS_Store", "_SUCCESS", ".ipynb_checkpoints/part-0.json"):
            store_for(place).write_bytes(f"{place}/{name}", b"\0\0Bud1\n")
        store_for(place).write_bytes(f"{place}/empty.json", b"")
        store_for(place).write_bytes(f"{place}_2018.json", lines(rows))
        if request.param == "gs":  # what the console's "create folder" makes
            store_for(place).write_bytes(f"{place}/", b"")
        return place

    @pytest.mark.parametrize("pattern", ["", "/", "/part-*.json", "/part-?.json", "/part-[01].json"])
    def test_folders_and_patterns_mean_the_same_everywhere(self, place, tmp_path, pattern, expected):
        uri = place + pattern
        assert [file.uri.rpartition("/")[2] for file in find_inputs((uri,))] == ["part-0.json", "part-1.json"]
        assert prepare(DataPrepConfig(reviews=(uri,), k_core=1), tmp_path / "out").fingerprint == expected
        assert fingerprint_inputs((uri,), ()) == fingerprint_inputs((f"{place}/",), ())

    @pytest.mark.parametrize("name", ["_20", "_2018", "/part-9*", "/part", "/nothing/"])
    def test_the_beginning_of_a_name_names_nothing(self, place, name):
        with refused("storage.not_found"):
            find_inputs((place + name,))

    def test_one_file_named_twice_is_refused(self, place):
        with refused("reviews.named_twice"):
            find_inputs((place, f"{place}/part-0.json"))

    def test_a_name_with_signs_of_a_pattern_is_a_name_first(self, tmp_path):
        path = write(tmp_path / "reviews [1].json", lines(ROWS))
        assert [file.uri for file in find_inputs((path,))] == [path]


def test_input_that_changed_since_preflight_is_refused(tmp_path):
    path = write(tmp_path / "reviews.json", lines(ROWS))
    config = DataPrepConfig(reviews=(path,), k_core=1)
    seen = fingerprint_inputs((path,), ())
    prepare(config, tmp_path / "same", inputs_fingerprint=seen)
    write(tmp_path / "reviews.json", lines(ROWS[1:]))
    with refused("reviews.changed"):
        prepare(config, tmp_path / "changed", inputs_fingerprint=seen)
    assert not (tmp_path / "changed").exists()
    prepare(config, tmp_path / "alone", inputs_fingerprint="not compared")


def test_input_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "reviews.json", lines(ROWS))
    module = importlib.import_module("latentrec.data.preparation")
    real = module.write_tables

    def write_tables(*arguments):
        real(*arguments)
        write(tmp_path / "reviews.json", lines(ROWS) + b"\n")

    monkeypatch.setattr(module, "write_tables", write_tables)
    with refused("reviews.changed"):
        prepare(DataPrepConfig(reviews=(path,), k_core=1), tmp_path / "out")
    assert not (tmp_path / "out").exists()
