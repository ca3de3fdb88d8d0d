"""A stored file as plain text with one record a line: unpacked within bounds, and what is no text refused.

Gzip and zstd are inflated piece by piece and never without bound; a JSON array becomes one line an element;
lines that end in carriage returns alone (old Macintosh files) end in newlines afterwards.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from latentrec.core import UserError

MAX_LINE_BYTES = 16 << 20
"""A line, or an element of an array, may be so long; reviews have a few thousand bytes."""
_RAW_BYTES = 1 << 20
_OUT_BYTES = 4 << 20
_ZSTD_FEED = 4096  # a block of 4 bytes may hold 128 KiB: one feed inflates to 128 MiB at most
_ZSTD_WINDOW = 1 << 27  # zstd's own limit without --long; a frame may ask for gigabytes
# Far above what text of reviews reaches, below what a compression bomb does; small files do no harm.
_MAX_RATIO, _RATIO_FROM = 400, 1 << 30
_HEAD_BYTES = 1 << 16
_BOM = b"\xef\xbb\xbf"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_NOT_READ = {
    b"PK\x03\x04": "a zip archive; unpack it (plain, gzip and zstd are read)",
    b"BZh": "a bzip2 file; unpack it (plain, gzip and zstd are read)",
    b"\xfd7zXZ": "an xz file; unpack it (plain, gzip and zstd are read)",
    b"7z\xbc\xaf": "a 7z archive; unpack it (plain, gzip and zstd are read)",
    b"PAR1": "a Parquet file; write it as JSON lines, for example with "
    "pandas.read_parquet(…).to_json(…, orient='records', lines=True)",
    b"\xff\xfe": "UTF-16 text; convert it, for example with iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it, for example with iconv -f UTF-16 -t UTF-8",
    b"SQLite format 3": "a SQLite database; export the table as CSV with a header",
    b"%PDF": "a PDF document, not data",
}
_PAGES = re.compile(rb"\s*(?:<!doctype html|<html|<\?xml)", re.IGNORECASE)


def text_pieces(stream: BinaryIO, uri: str, done: Callable[[str, int], None]) -> Iterator[tuple[bytes, int]]:
    """Pairs of (text, bytes of the file read for it), in pieces of a few MB at most.

    Args:
        stream: the file as stored.
        uri: for messages.
        done: called at the end with the sha256 and the size of the file as stored.

    Raises:
        UserError: the file is damaged, cut off, inflates without end, or is of a kind that is not read.
    """
    pieces = _decompressed(stream, uri, done)
    head, raw = b"", 0
    for piece, raw_bytes in pieces:
        head, raw = head + piece, raw + raw_bytes
        if len(head) >= _HEAD_BYTES:
            break
    if not head and not raw:
        return
    head = head.removeprefix(_BOM)
    _refuse_what_is_no_text(head, uri)

    def whole() -> Iterator[tuple[bytes, int]]:
        yield head, raw
        yield from pieces

    if re.match(rb"\s*\[\s*\{", head):
        yield from _elements(whole(), uri)
    elif b"\r" in head.rstrip(b"\r") and b"\n" not in head:
        yield from ((piece.replace(b"\r", b"\n"), raw_bytes) for piece, raw_bytes in whole())
    else:
        yield from whole()


def count_newlines(data: bytes) -> int:
    """Newlines in a block; releases the interpreter lock, unlike ``bytes.count``."""
    import numpy as np

    codes = np.frombuffer(data, np.uint8)
    step = 1 << 18  # stays in the cache
    return sum(
        int(np.count_nonzero(codes[start : start + step] == 10)) for start in range(0, len(codes), step)
    )


def _decompressed(
    stream: BinaryIO, uri: str, done: Callable[[str, int], None]
) -> Iterator[tuple[bytes, int]]:
    """Inflates what is packed; hashes the file as stored."""
    digest = hashlib.sha256()
    read = written = 0
    unpacker: _Plain | _Gzip | _Zstd | None = None
    while chunk := stream.read(_RAW_BYTES):
        digest.update(chunk)
        read += len(chunk)
        raw = len(chunk)
        unpacker = unpacker or _unpacker_for(chunk)
        pieces = unpacker.feed(chunk)
        while True:
            try:
                piece = next(pieces, None)
            except Exception as error:
                if "too much memory" in str(error):
                    raise UserError(
                        f"{uri}: compressed with a window of more than {_ZSTD_WINDOW >> 20} MB; compress it "
                        "again without --long",
                        code="reviews.window_too_large",
                    ) from None
                raise UserError(
                    f"{uri}: the compressed data is damaged near byte {read:,} ({error}); fetch the file "
                    "again",
                    code="reviews.damaged",
                ) from None
            if piece is None:
                break
            written += len(piece)
            if written > _RATIO_FROM and written > _MAX_RATIO * read:
                raise UserError(
                    f"{uri}: {read:,} bytes inflate to more than {written:,}, which no file of reviews does; "
                    "check where it comes from",
                    code="reviews.inflates_too_much",
                )
            yield piece, raw
            raw = 0
        if raw:
            yield b"", raw
    if unpacker is not None and unpacker.is_unfinished:
        raise UserError(
            f"{uri}: the compressed file ends too early, after {read:,} bytes; fetch it again",
            code="reviews.cut_off",
        )
    done(digest.hexdigest(), read)


def _unpacker_for(head: bytes) -> _Plain | _Gzip | _Zstd:
    if head.startswith(_GZIP):
        return _Gzip()
    return _Zstd() if head.startswith(_ZSTD) else _Plain()


class _Plain:
    is_unfinished = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk


class _Gzip:
    """Members one after the other, zero bytes between them."""

    def __init__(self) -> None:
        self._member: Any = None

    @property
    def is_unfinished(self) -> bool:
        return self._member is not None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        rest = chunk
        while rest:
            if self._member is None:
                rest = rest.lstrip(b"\0")
                if not rest:
                    return
                self._member = zlib.decompressobj(wbits=31)
            piece = self._member.decompress(rest, _OUT_BYTES)
            rest = self._member.unconsumed_tail
            if self._member.eof:
                rest, self._member = self._member.unused_data, None
            yield piece
        while self._member is not None:  # what the bound held back of the last piece
            piece = self._member.decompress(b"", _OUT_BYTES)
            if self._member.eof:
                self._member = None
            if not piece:
                return
            yield piece


class _Zstd:
    """Frames one after the other."""

    def __init__(self) -> None:
        self._frame: Any = None

    @property
    def is_unfinished(self) -> bool:
        return self._frame is not None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        import zstandard

        view = memoryview(chunk)
        start = 0
        while start < len(view):
            rest = bytes(view[start : start + _ZSTD_FEED])
            start += len(rest)
            while rest:
                if self._frame is None:
                    self._frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
                piece = self._frame.decompress(rest)
                rest = self._frame.unused_data if self._frame.eof else b""
                if self._frame.eof:
                    self._frame = None
                if piece:
                    yield piece


def _refuse_what_is_no_text(head: bytes, uri: str) -> None:
    if head.startswith((_GZIP, _ZSTD)):
        raise UserError(
            f"{uri}: compressed twice; unpack it once (gunzip or unzstd) and give the result",
            code="reviews.compressed_twice",
        )
    for magic, what in _NOT_READ.items():
        if head.startswith(magic):
            raise UserError(f"{uri} is {what}", code="reviews.not_text")
    if head[257:262] == b"ustar":
        raise UserError(f"{uri} is a tar archive; extract the file from it", code="reviews.not_text")
    if _PAGES.match(head):
        raise UserError(
            f"{uri} is a web page and not a data file; check the address (a login or a form may stand before "
            "it)",
            code="reviews.not_text",
        )
    zeros = head.count(0)
    if zeros * 4 > len(head) > 8:
        raise UserError(
            f"{uri}: UTF-16 without its mark, or a binary file; give UTF-8 text", code="reviews.not_text"
        )
    if zeros * 100 > len(head) > 400:
        raise UserError(f"{uri}: a binary file (many zero bytes); give UTF-8 text", code="reviews.not_text")


def _elements(pieces: Iterator[tuple[bytes, int]], uri: str) -> Iterator[tuple[bytes, int]]:
    """The elements of a JSON array, one a line; bytes that are not UTF-8 pass through."""
    text_of = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    decoder = json.JSONDecoder()
    buffer, place, number, opened, closed = "", 0, 0, False, False

    def lines() -> Iterator[str]:
        nonlocal place, number, opened, closed
        while True:
            place = _skip(buffer, place, " \t\r\n," if opened else " \t\r\n")
            if place == len(buffer):
                return
            if closed:
                raise UserError(
                    f"{uri}: something follows the end of the JSON array, after element {number:,}",
                    code="reviews.damaged",
                )
            if not opened:
                opened, place = True, place + 1
                continue
            if buffer[place] == "]":
                closed, place = True, place + 1
                continue
            try:
                _, end = decoder.raw_decode(buffer, place)
            except RecursionError:
                raise UserError(
                    f"{uri}: element {number + 1:,} of the JSON array is nested too deeply",
                    code="reviews.damaged",
                ) from None
            except ValueError as error:
                if _may_go_on(error, len(buffer)) and len(buffer) - place <= MAX_LINE_BYTES:
                    return
                raise UserError(_broken(uri, number + 1, error), code="reviews.damaged") from None
            if end == len(buffer) and buffer[end - 1] not in '}]"':
                return  # a number may go on
            number += 1
            element = buffer[place:end].replace("\n", " ").replace("\r", " ")
            place = end
            yield element

    for piece, raw_bytes in pieces:
        buffer, place = buffer[place:] + text_of.decode(piece), 0
        found = [*lines()]
        out = "\n".join(found).encode("utf-8", "surrogateescape")
        yield (out + b"\n" if found else b""), raw_bytes
    if not closed:
        raise UserError(_broken(uri, number + 1, None), code="reviews.damaged")


def _may_go_on(error: ValueError, length: int) -> bool:
    """Whether a piece that cannot be parsed may only be cut off."""
    position = getattr(error, "pos", length)
    return str(error).startswith("Unterminated string") or position >= length - 8


def _broken(uri: str, number: int, error: ValueError | None) -> str:
    reason = f" ({str(error).partition(':')[0]})" if error is not None else " (the file ends before it does)"
    return (
        f"{uri}: element {number:,} of the JSON array cannot be read{reason}; mend it, or write one object a "
        "line (jq -c '.[]'), so that --skip-bad-lines can drop it"
    )


def _skip(text: str, place: int, signs: str) -> int:
    while place < len(text) and text[place] in signs:
        place += 1
    return place
