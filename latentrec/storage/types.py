"""What every kind of storage offers: stat, read, write under a precondition, list, delete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from latentrec.core.error_codes import UNSPECIFIED
from latentrec.core.redact import redact

ABSENT = "absent"
"""As ``if_version``: the write succeeds only where nothing stands yet (create-once)."""


class PreconditionFailed(RuntimeError):
    """Another writer was there first: the object's version is not the one that the write expected."""


class StorageError(RuntimeError):
    """Storage did not do what was asked, within the bounds of time and retries, and nothing is half-done.

    The message names the location, what happened and what to do. A command prints it without a traceback
    and exits with code 1: the input is not at fault, and a later attempt may succeed. Secrets of the
    locations in it are taken out here.

    Attributes:
        code: what went wrong, one of :data:`~latentrec.core.error_codes.ERROR_CODES`.
    """

    def __init__(self, *arguments: Any, code: str = UNSPECIFIED):
        super().__init__(*(redact(a) if isinstance(a, str) else a for a in arguments))
        self.code = code


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object.

    Attributes:
        uri: full location.
        size: bytes.
        version: opaque; changes with the content (GCS generation, HTTP etag, file mtime and size).
        crc32c: base64 checksum where the store knows it without reading.
        updated: UTC seconds of the last write; 0 when unknown.
    """

    uri: str
    size: int
    version: str
    crc32c: str | None = None
    updated: float = 0.0


MAX_SMALL = 256 << 20
"""Bytes of a file that is read whole into memory (:meth:`Store.read_bytes`)."""


def too_large(uri: str) -> StorageError:
    """The error for a file that is larger."""
    return StorageError(
        f"{uri}: larger than {MAX_SMALL >> 20} MB, not the file expected here", code="storage.too_large"
    )


class Store(Protocol):
    """One kind of storage. ``uri`` is always the full location, scheme included.

    A missing object raises ``FileNotFoundError``; a location that the user cannot have meant, or may not
    reach, raises :class:`latentrec.core.UserError`.
    """

    def stat(self, uri: str) -> ObjectInfo | None:
        """Describe one object, or ``None`` where there is none."""
        ...

    def open_read(self, uri: str) -> BinaryIO:
        """Open for sequential reading; transfers are verified where the store gives a checksum."""
        ...

    def read_bytes(self, uri: str) -> bytes:
        """Read a small object whole.

        Raises:
            StorageError: it is larger than :data:`MAX_SMALL`; no more than that is ever taken.
        """
        ...

    def write_bytes(self, uri: str, data: bytes, *, if_version: str | None = None) -> ObjectInfo:
        """Write atomically. ``if_version``: ``None`` always, ``ABSENT`` create-once, else compare-and-swap.

        Raises:
            PreconditionFailed: the precondition does not hold; nothing was written.
        """
        ...

    def upload_file(self, path: Path, uri: str, *, if_version: str | None = None) -> ObjectInfo:
        """Copy a local file to ``uri``, atomically, checksum verified, memory bounded."""
        ...

    def download_file(self, uri: str, path: Path) -> None:
        """Copy ``uri`` to a local file, atomically (written beside and renamed), checksum verified."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose location starts with ``prefix``, in order of name."""
        ...

    def leftovers(self, prefix: str) -> Iterator[ObjectInfo]:
        """Pieces of writes below ``prefix`` that are under way or were killed; :meth:`list` hides them."""
        ...

    def delete(self, uri: str, *, if_version: str | None = None) -> None:
        """Remove one object; it is no error when it is gone already."""
        ...

    def deletion_rules(self, uri: str) -> Sequence[str] | None:
        """Rules by which objects below ``uri`` are deleted without anybody asking, each in words.

        ``None``: not known, because these rules may not be read, or the store does not answer to it.
        """
        ...
