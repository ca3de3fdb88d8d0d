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
# Far above what text of reviews reaches, below what a compression bomb does; small files do no harm.
_MAX_RATIO, _RATIO_FROM = 400, 1 << 30
_HEAD_BYTES = 1 << 16
_BOM = b"\xef\xbb\xbf"
_CUT_OFF = "Truncated compressed stream"
"""What Arrow says of it."""
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_NOT_READ = {
    b"PK\x03\x04": "a zip archive; unpack it (plain, gzip and zstd are read)",
    b"BZh": "a bzip2 file; unpack it (plain, gzip and zstd are read)",
    b"\xfd7zXZ": "an xz file; unpack it (plain, gzip and zstd are read)",
    b"7z\xbc\xaf": "a 7z archive; unpack it (plain, gzip and zstd are read)",
    b"PARE": "an encrypted Parquet file; write it without encryption",
    b"\xff\xfe": "UTF-16 text; convert it, for example with iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it, for example with iconv -f UTF-16 -t UTF-8",
    b"SQLite format 3": "a SQLite database; export the table as CSV with a header",
    b"%PDF": "a PDF document, not data",
}
_PAGES = re.compile(rb"\s*(?:<!doctype html|<html|<\?xml)", re.IGNORECASE)
_ELEMENT = re.compile(r"[^ \t\r\n,]")


class ParquetFoundError(UserError):
    """A file of lines was expected and it is Parquet; who reads Parquet too takes it up again."""


def text_pieces(stream: BinaryIO, uri: str, done: Callable[[str, int], None]) -> Iterator[tuple[bytes, int]]:
    """Pairs of (text, bytes of the file read for it), in pieces of a few MB at most.

    Args:
        stream: the file as stored.
        uri: for messages.
        done: called at the end with the sha256 and the size of the file as stored.

    Raises:
        ParquetFoundError: the file is Parquet.
        UserError: the file is damaged, cut off, inflates without end, or is of a kind that is not read.
    """
    pieces = _unpacked(stream, uri, done)
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


class _Stored:
    """A file as stored, hashed and counted on its way."""

    closed = False  # Arrow asks

    def __init__(self, stream: BinaryIO) -> None:
        self.digest, self.size, self._stream = hashlib.sha256(), 0, stream
        self.head = self._next(_RAW_BYTES)

    def read(self, n: int) -> bytes:
        """As a file's."""
        if not self.head:
            return self._next(n)
        data, self.head = self.head[:n], self.head[n:]
        return data

    def _next(self, n: int) -> bytes:
        data = self._stream.read(n)
        self.digest.update(data)
        self.size += len(data)
        return data


def _unpacked(stream: BinaryIO, uri: str, done: Callable[[str, int], None]) -> Iterator[tuple[bytes, int]]:
    """Inflates what is packed; hashes the file as stored."""
    stored = _Stored(stream)
    pieces = (
        _gunzipped(stored)
        if stored.head.startswith(_GZIP)
        else _decoded_zstd(stored)
        if stored.head.startswith(_ZSTD)
        else iter(lambda: stored.read(_RAW_BYTES), b"")
    )
    written = reported = 0
    while True:
        try:
            piece = next(pieces, None)
        except (zlib.error, OSError) as error:
            if getattr(error, "errno", None) is not None:  # of the file, and not of what it holds
                raise
            raise _damaged(uri, stored.size, str(error)) from None
        if piece is None:
            break
        written += len(piece)
        if written > _RATIO_FROM and written > _MAX_RATIO * stored.size:
            raise UserError(
                f"{uri}: {stored.size:,} bytes inflate to more than {written:,}, which no file of reviews "
                "does; check where it comes from",
                code="reviews.inflates_too_much",
            )
        yield piece, stored.size - reported
        reported = stored.size
    if stored.size > reported:
        yield b"", stored.size - reported
    done(stored.digest.hexdigest(), stored.size)


def _gunzipped(packed: _Stored) -> Iterator[bytes]:
    """Members one after the other, zero bytes after them, which Arrow's reader does not take."""
    member: Any = None
    rest = b""
    while chunk := rest or packed.read(_RAW_BYTES):
        rest = b""
        if member is None:
            chunk = chunk.lstrip(b"\0")
            if not chunk:
                continue
            member = zlib.decompressobj(wbits=31)
        yield member.decompress(chunk, _OUT_BYTES)
        rest = member.unconsumed_tail
        if member.eof:
            rest, member = member.unused_data, None
    while member is not None:  # what the bound held back of the last piece
        piece = member.decompress(b"", _OUT_BYTES)
        if not piece and not member.eof:
            raise OSError(_CUT_OFF)
        member = None if member.eof else member
        yield piece


def _decoded_zstd(packed: _Stored) -> Iterator[bytes]:
    """Frames one after the other; Arrow refuses a window above 128 MB, as zstd does without ``--long``."""
    import pyarrow as pa

    plain = pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd")
    yield from iter(lambda: plain.read(_OUT_BYTES), b"")


def _damaged(uri: str, read: int, reason: str) -> UserError:
    if reason == _CUT_OFF:
        return UserError(
            f"{uri}: the compressed file ends too early, after {read:,} bytes; fetch it again",
            code="reviews.cut_off",
        )
    if "too much memory" in reason:
        return UserError(
            f"{uri}: compressed with a window of more than 128 MB; compress it again without --long",
            code="reviews.window_too_large",
        )
    return UserError(
        f"{uri}: the compressed data is damaged near byte {read:,} ({reason}); fetch the file again",
        code="reviews.damaged",
    )


def _refuse_what_is_no_text(head: bytes, uri: str) -> None:
    if head.startswith((_GZIP, _ZSTD)):
        raise UserError(
            f"{uri}: compressed twice; unpack it once (gunzip or unzstd) and give the result",
            code="reviews.compressed_twice",
        )
    if head.startswith(_PARQUET):
        raise ParquetFoundError(f"{uri} is a Parquet file and no text", code="reviews.not_text")
    zeros = head.count(0)
    what = next((f" is {what}" for magic, what in _NOT_READ.items() if head.startswith(magic)), "")
    if not what and head[257:262] == b"ustar":
        what = " is a tar archive; extract the file from it"
    elif not what and _PAGES.match(head):
        what = " is a web page and not a data file; check the address (a login or a form may stand before it)"
    elif not what and zeros * 4 > len(head) > 8:
        what = ": UTF-16 without its mark, or a binary file; give UTF-8 text"
    elif not what and zeros * 100 > len(head) > 400:
        what = ": a binary file (many zero bytes); give UTF-8 text"
    if what:
        raise UserError(f"{uri}{what}", code="reviews.not_text")


def _elements(pieces: Iterator[tuple[bytes, int]], uri: str) -> Iterator[tuple[bytes, int]]:
    """The elements of a JSON array, one a line; bytes that are not UTF-8 pass through."""
    text_of = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    decoder = json.JSONDecoder()
    buffer, place, number, closed = "", -1, 0, False

    def refused(what: str) -> UserError:
        return UserError(f"{uri}: {what}", code="reviews.damaged")

    def broken(reason: str) -> UserError:
        return refused(
            f"element {number + 1:,} of the JSON array cannot be read ({reason}); correct it, or write one "
            "object a line (jq -c '.[]'), so that --skip-bad-lines can drop it"
        )

    def lines() -> Iterator[str]:
        nonlocal place, number, closed
        while found := _ELEMENT.search(buffer, place):
            place = found.start()
            if closed:
                raise refused(f"something follows the end of the JSON array, after element {number:,}")
            if buffer[place] == "]":
                closed, place = True, place + 1
                continue
            try:
                _, end = decoder.raw_decode(buffer, place)
            except RecursionError:
                raise refused(f"element {number + 1:,} of the JSON array is nested too deeply") from None
            except ValueError as error:
                if _may_go_on(error, len(buffer)) and len(buffer) - place <= MAX_LINE_BYTES:
                    return
                raise broken(str(error).partition(":")[0]) from None
            if end == len(buffer) and buffer[end - 1] not in '}]"':
                return  # a number may go on
            number += 1
            element = buffer[place:end].replace("\n", " ").replace("\r", " ")
            place = end
            yield element
        place = len(buffer)

    for piece, raw_bytes in pieces:
        text = text_of.decode(piece)
        buffer = buffer[place:] + text if place >= 0 else text[text.index("[") + 1 :]
        place = 0
        found = [*lines()]
        out = "\n".join(found).encode("utf-8", "surrogateescape")
        yield (out + b"\n" if found else b""), raw_bytes
    if not closed:
        raise broken("the file ends before it does")


def _may_go_on(error: ValueError, length: int) -> bool:
    """Whether a piece that cannot be parsed may only be cut off."""
    position = getattr(error, "pos", length)
    return str(error).startswith("Unterminated string") or position >= length - 8
