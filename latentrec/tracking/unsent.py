"""What the tracking server has not received yet: a queue on disk, and what a step leaves in storage.

Queue: one JSON value a line, in order, written before anything is sent; a process that is killed loses
nothing. Delivery is at least once: MLflow drops a metric point that it already has (same key, step, time and
value), so a replay adds nothing twice. Undelivered records: what a step could not send before it ended is
stored beside the steps' status, and the run's last step sends it. That folder may be a bucket that others
write to, so no record contains a path: its files are found in the records' own folder, by names that are
checked, and only those are sent and removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.storage import join, store_for
from latentrec.storage.names import check_relative_name
from latentrec.tracking.delivery import Delivery, MetricsRejected
from latentrec.tracking.run_context import RunContext

_TRUNCATE_ABOVE = 1 << 20
_IN_MEMORY = 5000
"""Records that need not be read back from disk; a longer queue is, once those are sent."""
_SUFFIX = ".jsonl"
_BATCH = 500
_ARTIFACT = b'{"kind": "artifact"'
"""How a record with files begins; what comes first in a record is written first."""
_logger = logging.getLogger(__name__)


def parse_record(line: bytes) -> dict[str, Any]:
    """One line of a queue; a line that was cut off, or is no record, is one of kind ``damaged``."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {"kind": "damaged"}
    return record if isinstance(record, dict) and isinstance(record.get("kind"), str) else {"kind": "damaged"}


class DiskQueue:
    """Append at one end, deliver from the other; what a killed process has left is delivered first.

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
        self._file = self._path.open("ab", buffering=0)
        self._read, self._end = 0, self._path.stat().st_size
        self._peeked: list[int] = []
        # The oldest records not yet delivered, with their length on disk, as far as this process wrote them.
        self._memory: deque[tuple[int, dict[str, Any]]] = deque()
        self._memory_end = 0
        self._repair_last_line()
        # Size of each copy, by its folder; those of a killed process are counted before anything is sent.
        self._copies = {
            slot: sum(path.stat().st_size for path in _files(slot))
            for slot in (self.directory / "files").glob("*")
            if slot.name.isdigit()
        }
        self._next_copy = 1 + max((int(slot.name) for slot in self._copies), default=-1)

    def append(self, record: dict[str, Any]) -> bool:
        """Add one record; False (and counted in ``refused``) when there is no room on the disk for it."""
        line = json.dumps(record).encode() + b"\n"
        with self._lock:
            if self._end - self._read + len(line) > self.max_bytes:
                self.refused += 1
                return False
            try:
                if self._file.write(line) != len(line):
                    raise OSError("the disk is full")
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._end)  # a part of the line may be there
                self.refused += 1
                return False
            nothing_before = self._read == self._end
            goes_on = bool(self._memory) and self._memory_end == self._end
            if (nothing_before or goes_on) and len(self._memory) < _IN_MEMORY:
                self._memory.append((len(line), record))
                self._memory_end = self._end + len(line)
            self._end += len(line)
        return True

    def peek(self, limit: int) -> list[dict[str, Any]]:
        """The oldest records not yet delivered, at most ``limit``; a line cut off by a crash is skipped."""
        with self._lock:
            if self._memory:
                entries = list(islice(self._memory, limit))
            else:
                with self._path.open("rb") as stream:
                    stream.seek(self._read)
                    entries = [(len(line), parse_record(line)) for line in islice(stream, limit)]
            self._peeked = [length for length, _ in entries]
        return [record for _, record in entries]

    def advance(self, count: int) -> None:
        """The first ``count`` records of the last :meth:`peek` are delivered."""
        with self._lock:
            self._read += sum(self._peeked[:count])
            self._peeked = self._peeked[count:]
            for _ in range(min(count, len(self._memory))):
                self._memory.popleft()
            if self._read > _TRUNCATE_ABOVE and self._read == self._end:
                self._file.truncate(0)
                self._read = self._end = 0

    @property
    def is_empty(self) -> bool:
        """Whether everything is delivered."""
        return self._read >= self._end

    def keep_file(self, source: Path) -> Path | None:
        """A copy of a file that belongs to a record; ``None`` when there is no room for it."""
        with self._lock:
            slot = self.directory / "files" / f"{self._next_copy:06d}"
            self._next_copy += 1
        target = slot / source.name
        try:
            size = sum(path.stat().st_size for path in _files(source))
            with self._lock:
                if sum(self._copies.values()) + size > self.max_bytes:
                    return None
                self._copies[slot] = size
            slot.mkdir(parents=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
        except OSError:
            self.drop_file(target)
            return None
        return target

    def drop_file(self, kept: Path) -> None:
        """Remove a copy that :meth:`keep_file` made."""
        if kept.parent.parent == self.directory / "files":
            shutil.rmtree(kept.parent, ignore_errors=True)
            with self._lock:
                self._copies.pop(kept.parent, None)

    def undelivered(self) -> bytes:
        """Every record not yet delivered, as JSON lines."""
        with self._lock, self._path.open("rb") as stream:
            stream.seek(self._read)
            return stream.read()

    def close(self, *, remove: bool) -> None:
        """Release the folder; ``remove`` deletes it (everything was delivered, or is kept elsewhere)."""
        self._file.close()
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock_file)

    def _repair_last_line(self) -> None:
        """A process that was killed while writing has left a line without its end: close it."""
        if self._end:
            with self._path.open("rb") as stream:
                stream.seek(-1, os.SEEK_END)
                whole = stream.read(1) == b"\n"
            if not whole:
                self._file.write(b"\n")
                self._end += 1


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [entry for entry in path.rglob("*") if entry.is_file()] if path.exists() else []


def undelivered_root(context: RunContext) -> str | None:
    """Where undelivered records of a pipeline run stand; ``None`` for a command run by hand."""
    if not context.status_root or not context.run_id:
        return None
    return join(context.status_root, "undelivered", context.run_id)


def store_undelivered(context: RunContext, step: str, left: bytes) -> str | None:
    """Keep records (JSON lines) and the files that belong to them; returns where, ``None`` if it failed."""
    root = undelivered_root(context)
    if root is None:
        return None
    uri = join(root, f"{step}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        store = store_for(uri)
        lines = []
        for number, line in enumerate(left.splitlines()):
            record = parse_record(line) if line.startswith(_ARTIFACT) else {}
            if record.get("kind") == "artifact":
                source = Path(record.pop("path"))
                files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
                record["kept"] = [str(path.relative_to(source.parent)) for path in files]
                for path, name in zip(files, record["kept"], strict=True):
                    store.upload_file(path, _kept_file(uri, number, name))
                line = json.dumps(record).encode()
            lines.append(line)
        store.write_bytes(uri, b"\n".join(lines) + b"\n")
    except Exception as error:
        _logger.warning("%s: could not be kept: %s", uri, error)
        return None
    return uri


def list_undelivered(root: str) -> list[tuple[str, str]]:
    """(step, location) of each file of undelivered metrics in ``root``, without the artifacts beside them."""
    names = (info.uri.removeprefix(root + "/") for info in store_for(root).list(root + "/"))
    found = sorted(name for name in names if name.endswith(_SUFFIX) and "/" not in name)
    return [(name.rsplit(".", 2)[0], join(root, name)) for name in found]


def send_undelivered(uri: str, delivery: Delivery) -> int:
    """Deliver one step's undelivered records and remove them; returns how many the server has taken.

    Records that are damaged, or that the server will never take, are reported and left out.

    Raises:
        Exception: the server is away; the records stay.
    """
    store = store_for(uri)
    records, files = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(store.read_bytes(uri).splitlines()):
            try:
                record = parse_record(line)
                if record["kind"] == "damaged":
                    raise UserError("no record", code="tracking.bad_record")
                if record["kind"] == "artifact":
                    names = list(_kept_names(record, uri))
                    fetched = _fetch(uri, number, names, Path(folder))
                    record = {"kind": "artifact", "path": str(fetched)}
                    files += [_kept_file(uri, number, name) for name in names]
                records.append(record)
            except (UserError, FileNotFoundError) as error:
                _logger.warning("%s, line %d: left out: %s", uri, number + 1, error)
        taken = sum(
            _send(uri, delivery, records[start : start + _BATCH]) for start in range(0, len(records), _BATCH)
        )
    for location in files:
        store.delete(location)
    store.delete(uri)
    return taken


def _send(uri: str, delivery: Delivery, records: list[dict[str, Any]]) -> int:
    """Send a batch; where the server refuses it, or its shape is wrong, one after the other."""
    try:
        delivery.send(records)
    except (MetricsRejected, KeyError, TypeError, ValueError, AttributeError) as error:
        if len(records) > 1:
            return sum(_send(uri, delivery, [record]) for record in records)
        _logger.warning("%s: a record of %s is left out: %s", uri, records[0]["kind"], error)
        return 0
    return len(records)


def _kept_names(record: dict[str, Any], uri: str) -> Iterator[str]:
    """The files of one artifact: all of them, or the one, below one name.

    Raises:
        UserError: they are not plain relative names, or below more than one.
    """
    kept = record.get("kept")
    if not isinstance(kept, list) or not kept:
        raise UserError("an artifact without its files", code="tracking.bad_record")
    names = [check_relative_name(name, uri) for name in kept]
    if len({name.partition("/")[0] for name in names}) > 1 or len(set(names)) < len(names):
        raise UserError("an artifact of several names", code="tracking.bad_record")
    yield from names


def _fetch(uri: str, number: int, names: list[str], folder: Path) -> Path:
    """Copy the files of one artifact below ``folder``; returns the artifact's own path there."""
    for name in names:
        path = folder / str(number) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        store_for(uri).download_file(_kept_file(uri, number, name), path)
    return folder / str(number) / names[0].partition("/")[0]


def _kept_file(uri: str, number: int, name: str) -> str:
    """Location of a file of one undelivered record."""
    root, _, own = uri.rpartition("/")
    return join(root, "files", own.removesuffix(_SUFFIX), str(number), name)


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
