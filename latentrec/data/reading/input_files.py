"""Input files as blocks of whole lines: any location, plain, gzip or zstd, read ahead in a thread.

Reading, hashing and decompressing release the interpreter lock, so they overlap with the parsing of the
block before. At most a few blocks are in memory, whatever the size of the file.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy as np

from latentrec.core import UserError
from latentrec.storage import ObjectInfo, scheme_of, store_for

T = TypeVar("T")
R = TypeVar("R")
BLOCK_BYTES = 4 << 20
_RAW_BYTES = 1 << 20
_READ_AHEAD = 2
_BOM = b"\xef\xbb\xbf"
_NOT_READ = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"PAR1": "a Parquet file",
}


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
        codes = np.frombuffer(self.data, np.uint8)
        step = 1 << 18  # stays in the cache; releases the interpreter lock, unlike bytes.count
        newlines = sum(
            int(np.count_nonzero(codes[start : start + step] == 10)) for start in range(0, len(codes), step)
        )
        return newlines + (len(codes) > 0 and codes[-1] != 10)


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
    """The files behind locations; a folder or prefix stands for every file below it, in order of name.

    Raises:
        UserError: nothing is there, or a file is empty.
    """
    found: list[InputFile] = []
    for uri in uris:
        store = store_for(uri)
        info = store.stat(uri)
        infos: list[ObjectInfo] = [info] if info else []
        if info is None and scheme_of(uri) not in ("http", "https"):  # the web cannot be listed
            infos = [entry for entry in store.list(uri) if entry.size]
        if not infos:
            raise UserError(f"{uri}: no such file or folder")
        for entry in infos:
            if entry.size == 0:
                raise UserError(f"{entry.uri}: the file is empty")
            found.append(InputFile(entry.uri, entry.size))
    return found


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
    """The first lines, for recognising the format; reads no further than needed.

    Raises:
        UserError: as :func:`read_blocks`, or there is no line at all.
    """
    probe = InputFile(source.uri, source.bytes)
    for block in _blocks(probe, block_bytes):
        if block.data.strip():
            return block
    raise UserError(f"{source.uri}: the file holds no line")


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
    size = raw = 0
    try:
        stream = store_for(source.uri).open_read(source.uri)
    except FileNotFoundError:
        raise UserError(f"{source.uri}: no such file") from None
    with stream:
        is_first = True
        for piece, raw_bytes in _decompressed(stream, source):
            if is_first and piece:
                piece, is_first = piece.removeprefix(_BOM), False
            parts.append(piece)
            size += len(piece)
            raw += raw_bytes
            if size < block_bytes:
                continue
            whole = b"".join(parts)
            cut = whole.rfind(b"\n") + 1
            if cut == 0:
                continue
            data = whole[:cut]
            parts, size = [whole[cut:]], len(whole) - cut
            del whole
            yield Block(source.uri, data, raw)
            raw = 0
    data = b"".join(parts)
    if data or raw:
        yield Block(source.uri, data, raw)


def _decompressed(stream: BinaryIO, source: InputFile) -> Iterator[tuple[bytes, int]]:
    """Pairs of (decompressed bytes, bytes of the file read for them); hashes the file as stored."""
    digest = hashlib.sha256()
    read = 0
    first = stream.read(_RAW_BYTES)
    make_decoder = _decoder_for(first, source.uri)
    decoder = None
    chunk = first
    while chunk:
        digest.update(chunk)
        read += len(chunk)
        raw = len(chunk)
        if make_decoder is None:
            yield chunk, raw
        else:
            rest = chunk
            while rest:
                if decoder is None:
                    rest = rest.lstrip(b"\0")  # padding after a gzip member
                    if not rest:
                        break
                    decoder = make_decoder()
                try:
                    piece = decoder.decompress(rest)
                except Exception as error:
                    raise UserError(
                        f"{source.uri}: the compressed data is damaged near byte {read:,} ({error}); "
                        "fetch the file again"
                    ) from None
                rest = decoder.unused_data if decoder.eof else b""
                if decoder.eof:
                    decoder = None
                yield piece, raw
                raw = 0
            if raw:
                yield b"", raw
        chunk = stream.read(_RAW_BYTES)
    if decoder is not None:
        raise UserError(
            f"{source.uri}: the compressed file ends too early, after {read:,} bytes; fetch it again"
        )
    source.sha256, source.bytes = digest.hexdigest(), read


def _decoder_for(head: bytes, uri: str) -> Callable[[], Any] | None:
    if head.startswith(b"\x1f\x8b"):
        return lambda: zlib.decompressobj(wbits=31)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return lambda: zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
    for magic, what in _NOT_READ.items():
        if head.startswith(magic):
            raise UserError(f"{uri} is {what}; unpack it (plain, gzip and zstd are read)")
    return None
