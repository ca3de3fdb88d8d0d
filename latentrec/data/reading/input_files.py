"""Input files: found, fingerprinted, and read as blocks of whole lines, each file opened once.

A thread reads ahead: reading, hashing and decompressing release the interpreter lock, so they overlap with
the parsing of the block before. At most a few blocks are in memory, whatever the size of the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol, TypeVar

from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.data.reading.byte_streams import MAX_LINE_BYTES, count_newlines, text_pieces
from latentrec.storage import find_objects, input_fingerprint, store_for

T = TypeVar("T")
R = TypeVar("R")
BLOCK_BYTES = 4 << 20
_READ_AHEAD = 2
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass
class InputFile:
    """One input: what the manifest says of it.

    Attributes:
        uri: where it is.
        bytes: as stored.
        version: what the store called its content when it was found.
        sha256: of the file as stored, once it was read.
        lines: without the header; counted by the reader.
    """

    uri: str
    bytes: int
    version: str = ""
    sha256: str = ""
    lines: int = 0

    def describe(self) -> dict[str, Any]:
        """As it stands in ``manifest.json``."""
        return {"uri": self.uri, "bytes": self.bytes, "sha256": self.sha256}


@dataclass(frozen=True)
class Block:
    """Whole lines of one file.

    Attributes:
        uri: the file.
        data: decompressed bytes; ends with a newline except perhaps at the end of the file.
        raw_bytes: how many bytes of the file (as stored) were read for it.
        first_line: number of its first line, from 1.
        lines: how many it holds, a last one without newline included.
    """

    uri: str
    data: bytes
    raw_bytes: int
    first_line: int
    lines: int

    def without_header(self) -> Block:
        """What follows the first line that is not blank."""
        header = len(self.data) - len(self.data.lstrip())
        below = self.data.find(b"\n", header) + 1 or len(self.data)
        above = self.data.count(b"\n", 0, header) + 1
        return replace(
            self,
            data=self.data[below:],
            first_line=self.first_line + above,
            lines=self.lines - above,
        )


class Format(Protocol):
    """What is recognized from the first lines of a file."""

    @property
    def name(self) -> str:
        """For manifests and reports."""
        ...

    @property
    def has_header(self) -> bool:
        """Whether the first line holds no row."""
        ...


F = TypeVar("F", bound=Format)


def find_inputs(uris: tuple[str, ...]) -> list[InputFile]:
    """The files behind locations, as :func:`latentrec.storage.find_objects` lists them.

    Raises:
        UserError: nothing is there, a file is empty, or a file is named twice.
    """
    found: dict[str, InputFile] = {}
    for uri in uris:
        for entry in find_objects(uri):
            if entry.size == 0:
                raise UserError(f"{entry.uri}: the file is empty", code="reviews.empty")
            if entry.uri in found:
                raise UserError(
                    f"{entry.uri}: named twice; its events would count twice, name it once",
                    code="reviews.named_twice",
                )
            found[entry.uri] = InputFile(entry.uri, entry.size, entry.version)
    return list(found.values())


def total_bytes(files: list[InputFile]) -> int | None:
    """Bytes of all files as stored; ``None`` where a server does not say."""
    sizes = [file.bytes for file in files]
    return sum(sizes) if all(size >= 0 for size in sizes) else None


def fingerprint_inputs(reviews: tuple[str, ...], metadata: tuple[str, ...]) -> str:
    """A hash (64 hexadecimal digits) that changes when the content behind the inputs does.

    Raises:
        UserError: an input is not there.
    """
    body = [["reviews", input_fingerprint(reviews)], ["metadata", input_fingerprint(metadata)]]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def require_fingerprint(reviews: tuple[str, ...], metadata: tuple[str, ...], expected: str) -> None:
    """Raise if the inputs have changed since preflight computed their fingerprint.

    Args:
        reviews: locations.
        metadata: locations.
        expected: preflight's fingerprint; anything that is none (a component run by itself) is not compared.

    Raises:
        UserError: the content behind a name has changed since.
    """
    if not _FINGERPRINT.fullmatch(expected):
        return
    found = fingerprint_inputs(reviews, metadata)
    if found != expected:
        names = ", ".join(redact(uri) for uri in (*reviews, *metadata))
        raise UserError(
            f"{names}: changed since preflight (inputs_fingerprint {expected[:12]}…, now {found[:12]}…); "
            "start the run again when nothing writes there any more",
            code="reviews.changed",
        )


def require_unchanged(files: Iterable[InputFile]) -> None:
    """Refuse what was read when a file was written to since it was found.

    Raises:
        UserError: names the file.
    """
    for file in files:
        info = store_for(file.uri).stat(file.uri)
        if info is None or info.version != file.version:
            raise UserError(
                f"{file.uri}: changed while it was read; start again when nothing writes there any more",
                code="reviews.changed",
            )


def recognized(
    blocks: Iterator[Block], uri: str, recognize: Callable[[Block], F]
) -> tuple[F, Iterator[Block]]:
    """The format of a file, by its first lines, and its blocks below a header.

    Args:
        blocks: of the file, from its beginning.
        uri: for messages.
        recognize: determines the format from a block that holds a line, or raises.

    Raises:
        UserError: the file holds no line, or what ``recognize`` and ``blocks`` raise.
    """
    raw_bytes = 0
    for block in blocks:
        raw_bytes += block.raw_bytes
        if block.data.strip():
            first = replace(block, raw_bytes=raw_bytes)
            found = recognize(first)
            return found, chain([first.without_header() if found.has_header else first], blocks)
    raise UserError(f"{uri}: the file holds no line", code="reviews.empty")


def read_blocks(source: InputFile, block_bytes: int = BLOCK_BYTES) -> Generator[Block]:
    """Yield the file's lines in blocks; fills in ``source.sha256``.

    Raises:
        UserError: the file is gone, cut off, damaged, or of a kind that is not read.
    """
    parts: list[bytes] = []
    size = raw = lines = 0

    def done(sha256: str, stored: int) -> None:
        source.sha256, source.bytes = sha256, stored

    def block(data: bytes) -> Block:
        nonlocal raw, lines
        if len(data) > MAX_LINE_BYTES and max(len(line) for line in data.split(b"\n")) > MAX_LINE_BYTES:
            raise UserError(
                f"{source.uri}, after line {lines:,}: a line is longer than {MAX_LINE_BYTES >> 20} MB; write "
                "one record a line, and check that the file holds reviews",
                code="reviews.long_line",
            )
        count = count_newlines(data) + (len(data) > 0 and data[-1] != 10)
        made = Block(source.uri, data, raw, lines + 1, count)
        raw, lines = 0, lines + count
        return made

    try:
        stream = store_for(source.uri).open_read(source.uri)
    except FileNotFoundError:
        raise UserError(f"{source.uri}: no such file", code="reviews.not_found") from None
    except OSError as error:
        raise UserError(
            f"{source.uri}: cannot be read ({error.strerror})", code="reviews.unreadable"
        ) from None
    with stream:
        for piece, raw_bytes in text_pieces(stream, source.uri, done):
            parts.append(piece)
            size += len(piece)
            raw += raw_bytes
            if size < block_bytes:
                continue
            cut = piece.rfind(b"\n") + 1  # only the new piece: a long line must not cost quadratic time
            if cut:
                yield block(b"".join([*parts[:-1], piece[:cut]]))
                parts, size = [piece[cut:]], len(piece) - cut
            elif size > MAX_LINE_BYTES + block_bytes:
                block(b"".join(parts))  # raises
    data = b"".join(parts)
    if data or raw:
        yield block(data)


def ahead(items: Generator[T]) -> Iterator[T]:
    """Run a generator in a thread, a few results ahead; its exception is raised here."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        waiting = deque(pool.submit(next, items, None) for _ in range(_READ_AHEAD))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(pool.submit(next, items, None))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)
            items.close()


def map_in_order(function: Callable[[T], R], items: Iterator[T], workers: int) -> Iterator[tuple[T, R]]:
    """(item, result) in the order of ``items``; ``workers`` threads, a bounded number of items in flight."""
    with ThreadPoolExecutor(workers) as pool:
        flying: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            flying.append((item, pool.submit(function, item)))
            if len(flying) > workers:
                first, future = flying.popleft()
                yield first, future.result()
        for first, future in flying:
            yield first, future.result()
