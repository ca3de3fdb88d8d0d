"""A bounded queue on disk: what a step has to tell, kept until the tracking server has taken it.

One JSON value a line, in order. Delivery is at least once: MLflow drops a metric point that it already has
(same key, step, time and value), so a replay adds nothing twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

_TRUNCATE_ABOVE = 1 << 20


def parse_record(line: bytes) -> dict[str, Any]:
    """One line of a queue; a line that was cut off, or is no record, is one of kind ``damaged``."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {"kind": "damaged"}
    return record if isinstance(record, dict) and isinstance(record.get("kind"), str) else {"kind": "damaged"}


class DiskQueue:
    """Append at one end, deliver from the other; what a dead process left behind is delivered first.

    Args:
        directory: folder of this queue, made if absent. While another process holds it, this one takes a
            folder of its own beside it.
        max_bytes: above this, new records are refused (:meth:`append` returns False) and counted.

    Attributes:
        refused: records for which there was no room.
    """

    def __init__(self, directory: Path, max_bytes: int):
        self.directory, self._lock_file = _claim(directory)
        self.max_bytes = max_bytes
        self.refused = 0
        self._lock = threading.Lock()
        self._path = self.directory / "events.jsonl"
        self._file = self._path.open("ab")
        self._read, self._end = 0, self._path.stat().st_size
        self._peeked: list[int] = []
        self._mend_last_line()

    def append(self, record: dict[str, Any]) -> bool:
        """Add one record; False (and counted in ``refused``) when there is no room on the disk for it."""
        line = json.dumps(record).encode() + b"\n"
        with self._lock:
            if self._end - self._read + len(line) > self.max_bytes:
                self.refused += 1
                return False
            try:
                self._file.write(line)
                self._file.flush()
            except OSError:
                self.refused += 1
                return False
            self._end += len(line)
        return True

    def peek(self, limit: int) -> list[dict[str, Any]]:
        """The oldest records not yet delivered, at most ``limit``; a line cut off by a crash is skipped."""
        found: list[dict[str, Any]] = []
        self._peeked = []
        with self._lock, self._path.open("rb") as stream:
            stream.seek(self._read)
            for line in stream:
                if len(found) == limit:
                    break
                self._peeked.append(len(line))
                found.append(parse_record(line))
        return found

    def advance(self, count: int) -> None:
        """The first ``count`` records of the last :meth:`peek` are delivered."""
        with self._lock:
            self._read += sum(self._peeked[:count])
            self._peeked = self._peeked[count:]
            if self._read > _TRUNCATE_ABOVE and self._read == self._end:
                self._file.truncate(0)
                self._read = self._end = 0

    @property
    def is_empty(self) -> bool:
        """Whether everything is delivered."""
        return self._read >= self._end

    def keep_file(self, source: Path) -> Path | None:
        """A copy of a file that travels with a record; ``None`` when there is no room for it."""
        size = sum(path.stat().st_size for path in _files(source))
        kept = sum(path.stat().st_size for path in _files(self.directory / "files"))
        if kept + size > self.max_bytes:
            return None
        folder = self.directory / "files"
        number = 0
        while (slot := folder / f"{number:06d}").exists():
            number += 1
        slot.mkdir(parents=True)
        target = slot / source.name
        try:
            shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
        except OSError:
            shutil.rmtree(slot, ignore_errors=True)
            return None
        return target

    def drop_file(self, kept: Path) -> None:
        """Remove a copy that :meth:`keep_file` made."""
        if kept.parent.parent == self.directory / "files":
            shutil.rmtree(kept.parent, ignore_errors=True)

    def undelivered(self) -> bytes:
        """Every record not yet delivered, as JSON lines."""
        with self._lock, self._path.open("rb") as stream:
            stream.seek(self._read)
            return stream.read()

    def close(self, *, remove: bool) -> None:
        """Let go of the folder; ``remove`` deletes it (everything was delivered, or is kept elsewhere)."""
        self._file.close()
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock_file)

    def _mend_last_line(self) -> None:
        """A process that died while writing left a line without its end: close it, it reads as damaged."""
        if self._end:
            with self._path.open("rb") as stream:
                stream.seek(-1, os.SEEK_END)
                whole = stream.read(1) == b"\n"
            if not whole:
                self._file.write(b"\n")
                self._file.flush()
                self._end += 1


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [entry for entry in path.rglob("*") if entry.is_file()] if path.exists() else []


def _claim(directory: Path) -> tuple[Path, int]:
    for number in range(1000):
        candidate = directory if number == 0 else directory.with_name(f"{directory.name}-{number}")
        candidate.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(candidate, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return candidate, descriptor
        except BlockingIOError:
            os.close(descriptor)
    raise OSError(f"{directory}: a thousand processes hold queues here")
