"""Files on this machine behind the :class:`~latentrec.storage.types.Store` interface."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from latentrec.storage.types import ABSENT, MAX_SMALL, ObjectInfo, PreconditionFailed, too_large

_TEMPORARY_PREFIX = ".writing-"


def local_path(uri: str) -> Path:
    """Turn a plain path or ``file://`` location into a path."""
    return Path(uri.removeprefix("file://")).expanduser()


class LocalStore:
    """Local files; writes go beside the target and are renamed, preconditions hold under a file lock."""

    def stat(self, uri: str) -> ObjectInfo | None:
        """Describe one file, or ``None`` where there is none."""
        path = local_path(uri)
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not path.is_file():
            return None
        version = f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"
        return ObjectInfo(uri=str(uri), size=status.st_size, version=version, updated=status.st_mtime)

    def open_read(self, uri: str) -> BinaryIO:
        """Open the file for reading."""
        return local_path(uri).open("rb")

    def read_bytes(self, uri: str) -> bytes:
        """Read the file whole."""
        with local_path(uri).open("rb") as stream:
            data = stream.read(MAX_SMALL + 1)
        if len(data) > MAX_SMALL:
            raise too_large(uri)
        return data

    def write_bytes(self, uri: str, data: bytes, *, if_version: str | None = None) -> ObjectInfo:
        """Write the file atomically, under the precondition."""
        with temporary_beside(local_path(uri)) as temporary:
            temporary.write_bytes(data)
            return self._put(temporary, uri, if_version)

    def upload_file(self, path: Path, uri: str, *, if_version: str | None = None) -> ObjectInfo:
        """Copy a file to ``uri`` atomically, under the precondition."""
        with temporary_beside(local_path(uri)) as temporary:
            shutil.copyfile(path, temporary)
            return self._put(temporary, uri, if_version)

    def download_file(self, uri: str, path: Path) -> None:
        """Copy ``uri`` to ``path`` atomically."""
        with temporary_beside(path) as temporary:
            shutil.copyfile(local_path(uri), temporary)
            os.replace(temporary, path)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every file below the folder, or whose path starts with ``prefix``, in order of name."""
        return (info for info in self._walk(prefix) if not _is_temporary(info.uri))

    def leftovers(self, prefix: str) -> Iterator[ObjectInfo]:
        """Temporary files of writes that are under way or were killed."""
        return (info for info in self._walk(prefix) if _is_temporary(info.uri))

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        base = local_path(prefix)
        root = base if base.is_dir() else base.parent
        start = str(base) + "/" if str(prefix).endswith("/") else str(base)
        for path in sorted(root.rglob("*")) if root.is_dir() else []:
            if str(path).startswith(start) and (info := self.stat(str(path))):
                yield info

    def delete(self, uri: str, *, if_version: str | None = None) -> None:
        """Remove the file; gone already is no error."""
        path = local_path(uri)
        if not path.parent.is_dir():
            return
        with _locked(path):
            if self.stat(uri) is not None:
                self._check(uri, if_version)
                path.unlink(missing_ok=True)

    def deletion_rules(self, uri: str) -> Sequence[str] | None:
        """None: a file system has no such rules."""
        return []

    def _put(self, temporary: Path, uri: str, if_version: str | None) -> ObjectInfo:
        target = local_path(uri)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        with _locked(target):
            self._check(uri, if_version)
            _stamp(temporary, target)
            os.replace(temporary, target)
        fsync_directory(target.parent)
        info = self.stat(uri)
        assert info is not None
        return info

    def _check(self, uri: str, if_version: str | None) -> None:
        if if_version is None:
            return
        info = self.stat(uri)
        found = ABSENT if info is None else info.version
        if found != if_version:
            raise PreconditionFailed(f"{uri}: expected version {if_version}, found {found}")


def _is_temporary(uri: str) -> bool:
    return Path(uri).name.startswith(_TEMPORARY_PREFIX)


def fsync_directory(path: Path) -> None:
    """Make a rename inside ``path`` survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stamp(temporary: Path, target: Path) -> None:
    """Give the file a time of its own: kernels stamp by the tick and reuse inodes, so two may tie."""
    now = time.time_ns()
    with contextlib.suppress(FileNotFoundError):
        now = max(now, target.stat().st_mtime_ns + 1)
    os.utime(temporary, ns=(now, now))


@contextlib.contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Yield an empty file next to ``target``, to be written and renamed; removed if it is still there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY_PREFIX, dir=target.parent)
    os.close(descriptor)
    os.chmod(name, 0o644)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of the context; other processes of this machine wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the folder's lock while a precondition is checked and acted on."""
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
