"""Ranges of local files, and a bounded buffer, as the ends of a verified transfer."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c

from latentrec.storage.types import MAX_SMALL, too_large


class FileWindow(io.RawIOBase):
    """A range of a file as a stream of its own."""

    def __init__(self, path: Path, start: int, end: int, moved: Callable[[int], None]):
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self._start, self._size, self._at, self._moved = start, end - start, 0, moved

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        """Up to ``size`` bytes of the range."""
        left = self._size - self._at
        wanted = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._file.fileno(), wanted, self._start + self._at)
        self._at += len(data)
        self._moved(len(data))
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move inside the range."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Where reading goes on."""
        return self._at

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class BoundedBuffer(io.BytesIO):
    """A small object in memory; more than :data:`~latentrec.storage.types.MAX_SMALL` bytes are an error."""

    def __init__(self, uri: str):
        super().__init__()
        self._uri = uri

    def write(self, data: Any) -> int:
        """Append."""
        if self.tell() + len(data) > MAX_SMALL:
            raise too_large(self._uri)
        return super().write(data)


class FileRangeWriter:
    """Writes a range into an open file at its place, and keeps its crc32c."""

    def __init__(self, descriptor: int, start: int):
        self._descriptor, self._start = descriptor, start
        self.done = self.crc = 0

    def write(self, data: bytes) -> int:
        """Append to the range."""
        os.pwrite(self._descriptor, data, self._start + self.done)
        self.crc = google_crc32c.extend(self.crc, data)
        self.done += len(data)
        return len(data)

    def seek(self, offset: int) -> None:
        """Begin again (``offset`` is 0)."""
        assert offset == 0
        self.done = self.crc = 0

    def tell(self) -> int:
        """Bytes of the range so far."""
        return self.done


def crc32c_of(path: str | Path, start: int, end: int) -> int:
    """The crc32c of a range of a file, with bounded memory."""
    crc = 0
    with open(path, "rb", buffering=0) as stream:
        stream.seek(start)
        while start < end and (data := stream.read(min(1 << 20, end - start))):
            crc = google_crc32c.extend(crc, data)
            start += len(data)
    return crc
