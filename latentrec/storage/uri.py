"""Which store serves a location, by its scheme; each store is imported only when it is first needed."""

from __future__ import annotations

import os
from functools import cache

from latentrec.core import UserError
from latentrec.storage.local import LocalStore
from latentrec.storage.types import Store


def scheme_of(uri: str) -> str:
    """``file`` for a plain path, else what stands before ``://``, in lower case."""
    head, separator, _ = str(uri).partition("://")
    return head.lower() if separator else "file"


def store_for(uri: str) -> Store:
    """The store that serves ``uri``.

    Raises:
        UserError: the scheme is not one that this version knows.
    """
    return _store(scheme_of(uri), str(uri))


def join(root: str, *parts: str) -> str:
    """Join with single slashes, whatever the scheme."""
    return "/".join([str(root).rstrip("/"), *(part.strip("/") for part in parts)])


def is_local(uri: str) -> bool:
    """Whether the location is a path on this machine."""
    return scheme_of(uri) == "file"


@cache
def _make_store(scheme: str, emulator: str | None, process: int) -> Store | None:
    """One store a scheme and process: connections survive neither a fork nor another endpoint."""
    if scheme == "file":
        return LocalStore()
    if scheme == "gs":
        try:
            from latentrec.storage.gcs import GcsStore
        except ImportError as error:
            raise UserError(
                f"gs:// needs google-cloud-storage ({error}): install latentrec[gcs]",
                code="storage.needs_package",
            ) from None
        return GcsStore()
    if scheme in ("http", "https"):
        from latentrec.storage.http import HttpStore

        return HttpStore()
    if scheme in ("s3", "minio"):
        from latentrec.storage.s3 import S3Store

        return S3Store(scheme)
    return None


def _store(scheme: str, uri: str) -> Store:
    store = _make_store(scheme, os.environ.get("STORAGE_EMULATOR_HOST"), os.getpid())
    if store is None:
        raise UserError(
            f"{uri}: unknown kind of location '{scheme}://'; use a path, gs://, s3://, minio:// or https://",
            code="storage.bad_uri",
        )
    return store
