"""Input files as blocks of whole lines: any location, plain, gzip or zstd, read ahead in a thread.

Reading, hashing and decompressing release the interpreter lock, so they overlap with the parsing of the
block before. At most a few blocks are in memory, whatever the size of the file.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from latentrec.core import UserError
from latentrec.data.reading.byte_streams import MAX_LINE_BYTES, count_newlines, text_pieces
from latentrec.storage import find_objects, store_for

T = TypeVar("T")
R = TypeVar("R")
BLOCK_BYTES = 4 << 20
_READ_AHEAD = 2


@dataclass(frozen=True)
class Block:
    """Whole lines of one file.

    Attributes:
        uri: the file.
        data: decompressed bytes; ends with a newline except perhaps at the end of the file.
        raw_bytes: how many bytes of the file (as stored) were read for it.
    """

    uri: str
    data: bytes
    raw_bytes: int

    def count_lines(self) -> int:
        """Lines in the block, a last one without newline included."""
        return count_newlines(self.data) + (len(self.data) > 0 and self.data[-1] != 10)


@dataclass
class InputFile:
    """One input: what the manifest says of it. ``sha256`` and ``lines`` are known once it was read."""

    uri: str
    bytes: int
    sha256: str = ""
    lines: int = 0

    def describe(self) -> dict[str, Any]:
        """As it stands in ``manifest.json``."""
        return {"uri": self.uri, "bytes": self.bytes, "sha256": self.sha256}


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
            found[entry.uri] = InputFile(entry.uri, entry.size)
    return list(found.values())


def total_bytes(files: list[InputFile]) -> int | None:
    """Bytes of all files as stored; ``None`` where a server does not say."""
    sizes = [file.bytes for file in files]
    return sum(sizes) if all(size >= 0 for size in sizes) else None


def read_blocks(source: InputFile, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the file's lines in blocks, read ahead in a thread; fills in ``source.sha256``.

    Raises:
        UserError: the file is gone, cut off, damaged, or of a kind that is not read.
    """
    yield from ahead(lambda: _blocks(source, block_bytes), _READ_AHEAD)


def first_block(source: InputFile, block_bytes: int = 1 << 18) -> Block:
    """The first lines, for recognizing the format; reads no further than needed.

    Raises:
        UserError: as :func:`read_blocks`, or there is no line at all.
    """
    probe = InputFile(source.uri, source.bytes)
    for block in _blocks(probe, block_bytes):
        if block.data.strip():
            return block
    raise UserError(f"{source.uri}: the file holds no line", code="reviews.empty")


def ahead(make: Callable[[], Iterator[T]], depth: int) -> Iterator[T]:
    """Run an iterator in a thread, at most ``depth`` results ahead; its exception is raised here."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()
    end = object()

    def put(value: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put(value, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for value in make():
                if not put((value, None)):
                    return
            put((end, None))
        except BaseException as error:
            put((end, error))

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            value, error = ready.get()
            if error is not None:
                raise error
            if value is end:
                return
            yield value
    finally:
        stop.set()
        thread.join()


def map_in_order(function: Callable[[T], R], items: Iterator[T], workers: int) -> Iterator[tuple[T, R]]:
    """(item, result) in the order of ``items``; ``workers`` threads, a bounded number of items in flight."""
    with ThreadPoolExecutor(workers) as pool:
        flying: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            flying.append((item, pool.submit(function, item)))
            if len(flying) > workers:
                first, future = flying.popleft()
                yield first, future.result()
        while flying:
            first, future = flying.popleft()
            yield first, future.result()


def _blocks(source: InputFile, block_bytes: int) -> Iterator[Block]:
    parts: list[bytes] = []
    size = raw = lines = 0
    try:
        stream = store_for(source.uri).open_read(source.uri)
    except FileNotFoundError:
        raise UserError(f"{source.uri}: no such file", code="reviews.not_found") from None
    except OSError as error:
        raise UserError(
            f"{source.uri}: cannot be read ({error.strerror})", code="reviews.unreadable"
        ) from None

    def done(sha256: str, stored: int) -> None:
        source.sha256, source.bytes = sha256, stored

    with stream:
        for piece, raw_bytes in text_pieces(stream, source.uri, done):
            parts.append(piece)
            size += len(piece)
            raw += raw_bytes
            if size < block_bytes:
                continue
            cut = piece.rfind(b"\n") + 1
            if cut == 0:  # only the new piece is searched: a long line must not cost quadratic time
                if size > MAX_LINE_BYTES + block_bytes:
                    raise _too_long(source.uri, lines)
                continue
            data = b"".join([*parts[:-1], piece[:cut]])
            parts, size = [piece[cut:]], len(piece) - cut
            if longest_line(data) > MAX_LINE_BYTES:
                raise _too_long(source.uri, lines)
            lines += count_newlines(data)
            yield Block(source.uri, data, raw)
            raw = 0
    data = b"".join(parts)
    if longest_line(data) > MAX_LINE_BYTES:
        raise _too_long(source.uri, lines)
    if data or raw:
        yield Block(source.uri, data, raw)


def longest_line(data: bytes) -> int:
    """Bytes of the longest line, as far as it matters: exact only above :data:`MAX_LINE_BYTES`."""
    if len(data) <= MAX_LINE_BYTES:
        return len(data)
    return max(len(line) for line in data.split(b"\n"))


def _too_long(uri: str, lines_before: int) -> UserError:
    return UserError(
        f"{uri}, after line {lines_before:,}: a line is longer than {MAX_LINE_BYTES >> 20} MB; write one "
        "record a line, and check that the file holds reviews",
        code="reviews.long_line",
    )
