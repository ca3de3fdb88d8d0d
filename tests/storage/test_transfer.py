"""Checksums of pieces, the range reader, and the environment's patience."""

import google_crc32c
from hypothesis import given
from hypothesis import strategies as st

from latentrec.storage import StorageError
from latentrec.storage.transfer import RangeReader, Timeouts, crc32c_combine, crc32c_text, pieces
from tests.errors import refused


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_combined_checksum_is_that_of_the_whole(first, second):
    combined = crc32c_combine(google_crc32c.value(first), google_crc32c.value(second), len(second))
    assert combined == google_crc32c.value(first + second)


def test_combined_checksum_over_gigabytes_of_zeros():
    """Appending 8 GiB of zeros in one step equals appending 128 MiB of them sixty-four times."""
    zeros, length = google_crc32c.value(bytes(1 << 20)), 1 << 20
    for _ in range(7):
        zeros, length = crc32c_combine(zeros, zeros, length), 2 * length
    some, stepwise = zeros, google_crc32c.value(b"seed")
    for _ in range(64):
        stepwise = crc32c_combine(stepwise, some, length)
    for _ in range(6):
        zeros, length = crc32c_combine(zeros, zeros, length), 2 * length
    assert crc32c_combine(google_crc32c.value(b"seed"), zeros, length) == stepwise


@given(st.integers(0, 100), st.integers(1, 30))
def test_pieces_cover_the_whole_once(size, length):
    ranges = pieces(size, length)
    assert [at for start, end in ranges for at in range(start, end)] == list(range(size))
    assert all(0 < end - start <= length for start, end in ranges)


def test_range_reader_gives_the_bytes_in_order_and_compares_the_checksum(monkeypatch):
    monkeypatch.setattr("latentrec.storage.transfer.PIECE", 7)
    data = bytes(range(250))
    good = crc32c_text(google_crc32c.value(data))
    for crc, fine in ((good, True), ("AAAAAA==", False), (None, True)):
        reader = RangeReader("gs://b/o", 250, lambda start, end: data[start:end], google_crc32c.extend, crc)
        if fine:
            assert reader.read() == data
        else:
            with refused("storage.corrupted", "gs://b/o", "AAAAAA==", error=StorageError):
                reader.read()


def test_range_reader_fetches_what_is_sought_and_checks_only_what_it_has_seen_whole(monkeypatch):
    monkeypatch.setattr("latentrec.storage.transfer.PIECE", 7)
    data, fetched = bytes(range(250)), []

    def fetch(start: int, end: int) -> bytes:
        fetched.append((start, end))
        return data[start:end]

    reader = RangeReader("gs://b/o", 250, fetch, google_crc32c.extend, "AAAAAA==")
    assert reader.seek(-8, 2) == 242
    assert reader.read() == data[242:]
    assert fetched == [(242, 249), (249, 250)]
    assert (reader.seek(10), reader.read(4), reader.tell()) == (10, data[10:14], 14)
    reader.seek(0)
    with refused("storage.corrupted", "gs://b/o", error=StorageError):
        reader.read()
    assert sorted(end for _, end in fetched)[-1] == 250


def test_patience_is_set_by_the_environment(monkeypatch):
    monkeypatch.setenv("LATENTREC_STORAGE_RETRY_S", "7.5")
    assert Timeouts.from_environment() == Timeouts(connect=5.0, answer=60.0, retry=7.5)
    monkeypatch.setenv("LATENTREC_STORAGE_RETRY_S", "soon")
    with refused("config.bad_value", "LATENTREC_STORAGE_RETRY_S", "0", "soon"):
        Timeouts.from_environment()
