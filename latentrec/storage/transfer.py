"""What remote stores share: timeouts, checksums of pieces, sequential reading by ranges, progress."""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from latentrec.core import UserError, progress
from latentrec.core.settings import (
    STORAGE_CONNECT_S_VARIABLE,
    STORAGE_RETRY_S_VARIABLE,
    STORAGE_TIMEOUT_S_VARIABLE,
    STORAGE_WORKERS_VARIABLE,
)
from latentrec.storage.types import StorageError

PIECE = 8 << 20
"""Bytes of one request of a large transfer; with :data:`WORKERS` it bounds the memory."""
PROGRESS_FROM = 8 << 20
_POLYNOMIAL = 0x82F63B78


def workers() -> int:
    """Transfers at once: ``LATENTREC_STORAGE_WORKERS``, else two for each processor, at most eight."""
    return int(_number(STORAGE_WORKERS_VARIABLE, min(8, 2 * (os.cpu_count() or 1))))


@dataclass(frozen=True)
class Timeouts:
    """How long a remote store is waited for, in seconds; operators set it through the environment.

    Attributes:
        connect: for a connection (``LATENTREC_STORAGE_CONNECT_S``).
        answer: for the next bytes on it (``LATENTREC_STORAGE_TIMEOUT_S``).
        retry: for one request with all its retries (``LATENTREC_STORAGE_RETRY_S``).
    """

    connect: float = 5.0
    answer: float = 60.0
    retry: float = 120.0

    @classmethod
    def from_environment(cls) -> Timeouts:
        """The defaults, changed by the variables that are set."""
        return cls(
            connect=_number(STORAGE_CONNECT_S_VARIABLE, cls.connect),
            answer=_number(STORAGE_TIMEOUT_S_VARIABLE, cls.answer),
            retry=_number(STORAGE_RETRY_S_VARIABLE, cls.retry),
        )

    @property
    def timeout(self) -> tuple[float, float]:
        """Seconds to connect and to wait for data, as ``requests`` takes them."""
        return (self.connect, self.answer)


def pieces(size: int, length: int = PIECE) -> list[tuple[int, int]]:
    """Split ``[0, size)`` into half-open ranges of at most ``length`` bytes."""
    return [(start, min(start + length, size)) for start in range(0, size, length)]


def crc32c_text(value: int) -> str:
    """A crc32c as Google Cloud Storage writes it: base64 of its four bytes, big end first."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def crc32c_value(text: str) -> int:
    """The inverse of :func:`crc32c_text`."""
    return int.from_bytes(base64.b64decode(text), "big")


def crc32c_combine(first: int, second: int, second_length: int) -> int:
    """The crc32c of two byte strings put together, from the crc32c of each and the second one's length.

    A cyclic redundancy check is linear over GF(2): appending zeros to the first string is a 32×32 bit
    matrix, whose power for ``second_length`` bytes is taken by repeated squaring.
    """
    power = _square(_square(_square([_POLYNOMIAL, *(1 << bit for bit in range(31))])))  # one zero byte
    while second_length:
        if second_length & 1:
            first = _times(power, first)
        second_length >>= 1
        power = _square(power)
    return first ^ second


@contextmanager
def transfer_progress(description: str, size: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to be called with the bytes moved; shows something for large transfers only."""
    if size < PROGRESS_FROM:
        yield lambda amount: None
        return
    lock = threading.Lock()
    with progress(description, size, "B") as bar:

        def update(amount: int) -> None:
            with lock:
                bar.update(amount)

        yield update


class RangeReader(io.RawIOBase):
    """Reads a remote object, front to back one piece ahead of the reader; a seek costs a request.

    Args:
        uri: for messages.
        size: of the object.
        fetch: returns exactly the bytes of a half-open range, or raises.
        extend_crc: ``(crc, data) → crc``; ``None`` where the store gives no checksum.
        crc: what the whole must have (base64), or ``None``; compared at the end of a reader that saw it all.
    """

    def __init__(
        self,
        uri: str,
        size: int,
        fetch: Callable[[int, int], bytes],
        extend_crc: Callable[[int, bytes], int] | None = None,
        crc: str | None = None,
    ):
        self._uri, self._size, self._fetch, self._expected = uri, size, fetch, crc
        self._extend = extend_crc or (lambda crc, data: crc)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._next: tuple[int, Future[bytes]] | None = None
        self._start, self._piece, self._position = 0, b"", 0
        self._crc = self._checked = 0

    def readable(self) -> bool:
        """``True``, as :class:`io.RawIOBase` asks."""
        return True

    def seekable(self) -> bool:
        """``True``: formats with an index at their end are read from there."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; bytes that are passed over are not fetched."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; 0 at the end, where the checksum is compared.

        Raises:
            StorageError: what was read is not what the store says it holds.
        """
        if self._position >= self._size:
            self._verify()
            return 0
        if not 0 <= self._position - self._start < len(self._piece):
            self._load()
        offset = self._position - self._start
        part = self._piece[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def close(self) -> None:
        """Stop reading ahead."""
        if not self.closed:
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _load(self) -> None:
        """Take up the piece at the position, and ask for the next one where reading goes on in order."""
        start, in_order = self._position, self._position == self._start + len(self._piece)
        if self._next is not None and self._next[0] == start:
            piece = self._next[1].result()
        else:
            piece = self._fetch(start, min(start + PIECE, self._size))
        self._start, self._piece, self._next = start, piece, None
        after = start + len(piece)
        if in_order and after < self._size:
            self._next = (after, self._pool.submit(self._fetch, after, min(after + PIECE, self._size)))
        if start == self._checked:
            self._crc, self._checked = self._extend(self._crc, piece), after

    def _verify(self) -> None:
        if self._expected is None or self._checked < self._size:
            return
        if crc32c_text(self._crc) != self._expected:
            raise StorageError(
                f"{self._uri}: the bytes read have crc32c {crc32c_text(self._crc)}, the store says "
                f"{self._expected}; read it again",
                code="storage.corrupted",
            )
        self._expected = None


def _square(matrix: list[int]) -> list[int]:
    return [_times(matrix, column) for column in matrix]


def _times(matrix: list[int], vector: int) -> int:
    total = 0
    for column in matrix:
        if vector & 1:
            total ^= column
        vector >>= 1
    return total


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value <= 0:
        raise UserError(f"{variable} is {text!r}, expected a number above 0", code="config.bad_value")
    return value
