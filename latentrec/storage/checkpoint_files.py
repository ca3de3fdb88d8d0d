"""The files of one checkpoint: uploaded, restored whole, verified against the index, removed."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.storage.local import local_path
from latentrec.storage.manifest import describe_file, difference_from, sha256_file
from latentrec.storage.output import replacing
from latentrec.storage.types import ABSENT, StorageError, Store
from latentrec.storage.uri import is_local, join


@dataclass(frozen=True)
class CheckpointInfo:
    """One saved checkpoint.

    Attributes:
        step: the trainer's step at which it was saved.
        metadata: what the trainer stored beside it (JSON values).
        uri: location of its files.
        created: UTC seconds.
        files: name → ``bytes``, ``sha256`` and, where the store knows it, ``crc32c``.
    """

    step: int
    metadata: dict[str, Any]
    uri: str
    created: float
    files: dict[str, dict[str, Any]]


def info_of(folder: str, entry: dict[str, Any]) -> CheckpointInfo:
    """An entry of the index of ``folder`` as callers see it."""
    return CheckpointInfo(
        step=entry["step"],
        metadata=entry["metadata"],
        uri=join(folder, entry["id"]),
        created=entry["created"],
        files=entry["files"],
    )


def upload_file(store: Store, path: Path, directory: Path, folder: str) -> dict[str, Any]:
    """Upload a file of ``directory`` to the checkpoint's ``folder``; returns its entry of the index."""
    relative = path.relative_to(directory).as_posix()
    info = store.upload_file(path, join(folder, relative), if_version=ABSENT)
    return describe_file(path) | ({} if info.crc32c is None else {"crc32c": info.crc32c})


def restore_files(store: Store, info: CheckpointInfo, destination: Path) -> None:
    """Copy a checkpoint to a local directory, as :meth:`CheckpointStore.restore` promises it."""

    def earlier(_: Path) -> tuple[str, set[str]]:
        return "checkpoint", set(info.files)

    try:
        with replacing(destination, artifact_in=earlier, option="the checkpoint's folder") as folder:
            for name, expected in info.files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                store.download_file(join(info.uri, name), path)
                if (found := difference_from(path, expected)) is not None:
                    raise StorageError(
                        f"{join(info.uri, name)} is damaged: {found}", code="checkpoint.damaged"
                    )
    except FileNotFoundError as error:
        raise StorageError(
            f"{info.uri}: a file of the checkpoint is gone ({error})", code="checkpoint.damaged"
        ) from None


def is_intact(store: Store, folder: str, entry: dict[str, Any]) -> bool:
    """Whether the files of an index's entry are all there and unchanged."""
    for name, expected in entry["files"].items():
        uri = join(folder, entry["id"], name)
        info = store.stat(uri)
        if info is None or info.size != expected["bytes"]:
            return False
        if info.crc32c and "crc32c" in expected:
            if info.crc32c != expected["crc32c"]:
                return False
        elif is_local(uri) and sha256_file(local_path(uri)) != expected["sha256"]:
            return False
    return True


def delete_files(store: Store, folder: str, entry: dict[str, Any]) -> None:
    """Remove what the index no longer names; what cannot be removed is left to garbage collection."""
    for file in entry["files"]:
        try:
            store.delete(join(folder, entry["id"], file))
        except (OSError, StorageError):
            return
    if is_local(folder):
        shutil.rmtree(local_path(join(folder, entry["id"])), ignore_errors=True)


@contextmanager
def explained(folder: str, consequence: str, take_back: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Turn the operating system's errors into one sentence, after ``take_back``.

    Raises:
        UserError: ``folder`` cannot be written.
        StorageError: storage is full or failing.
    """
    try:
        yield
    except OSError as error:
        take_back()
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise UserError(
                f"{folder} cannot be written ({error.strerror}): {consequence}",
                code="checkpoint.not_writable",
            ) from error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        cure = "; free space or choose another --checkpoint-root" if full else ""
        raise StorageError(
            f"{folder}: {error.strerror or error}: {consequence}{cure}", code="checkpoint.not_writable"
        ) from error
