"""The input files that a location names, and a fingerprint of what they hold."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace

from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.storage.local import local_path
from latentrec.storage.manifest import sha256_file
from latentrec.storage.types import ObjectInfo, Store
from latentrec.storage.uri import is_local, scheme_of, store_for

_HASH_LOCAL_UP_TO = 64 << 20


def find_objects(uri: str) -> list[ObjectInfo]:
    """The input files that ``uri`` names, in order of name: the one lister of inputs.

    One file; or every file below a folder (locally with or without a final ``/``); or those of a folder that
    match a pattern with ``*``, ``?`` or ``[…]`` in its last part. Names below it that begin with ``.`` or
    ``_`` are bookkeeping and left out, and so are empty files and the placeholders of folders in a bucket.
    A name that is only the beginning of others names nothing. The web cannot be listed.

    Raises:
        UserError: nothing is there.
    """
    uri = str(uri)
    store, scheme = store_for(uri), scheme_of(uri)
    exact = None if uri.endswith("/") else store.stat(uri)
    if exact is not None:
        return [exact]
    if scheme in ("http", "https"):
        raise UserError(
            f"{uri}: no such file; check the address (the web cannot be listed: name each file)",
            code="storage.not_found",
        )
    folder, _, pattern = uri.rpartition("/")
    if any(sign in pattern for sign in "*?["):
        base = f"{folder}/" if folder else "./"
        below = _listed(store, base)
        names = [info for name, info in below if "/" not in name and fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise UserError(
                f"{uri}: no file matches; check the folder and the pattern", code="storage.not_found"
            )
        return names
    below = _listed(store, uri if uri.endswith("/") else f"{uri}/")
    if not below:
        is_folder = scheme == "file" and local_path(uri).is_dir()
        what = "the folder holds no file that is read" if is_folder else "no such file or folder"
        raise UserError(f"{uri}: {what}; check the name", code="storage.not_found")
    return [info for _, info in below]


def list_inputs(uri: str) -> list[str]:
    """The locations of :func:`find_objects`."""
    return [info.uri for info in find_objects(uri)]


def _listed(store: Store, base: str) -> list[tuple[str, ObjectInfo]]:
    """(name below ``base``, object) of every input file there: hidden and empty ones are left out."""
    root = None
    if is_local(base):
        root = local_path(base)
        if not root.is_dir():
            return []
        base = os.path.abspath(root).rstrip("/") + "/"
    found = []
    for info in store.list(base):
        name = info.uri.removeprefix(base)
        hidden = any(part.startswith((".", "_")) for part in name.split("/"))
        if name and not hidden and not name.endswith("/") and info.size != 0:
            found.append((name, info if root is None else replace(info, uri=str(root / name))))
    return found


def input_fingerprint(uris: str | Iterable[str]) -> str:
    """A short hash that changes when the content behind the inputs changes, found without reading them.

    Google Cloud Storage: generation and crc32c; https: size and etag or date; local: sha256 of files up to
    64 MB, size and time of larger ones. It is a parameter of the cached ``data_prep`` step.

    Raises:
        UserError: an input is not there.
    """
    rows = []
    for uri in [uris] if isinstance(uris, str) else uris:
        for info in find_objects(uri):
            rows.append([redact(info.uri), info.size, _content_mark(info)])
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()[:32]


def _content_mark(info: ObjectInfo) -> str:
    if not is_local(info.uri):
        return f"{info.version} {info.crc32c or ''}"
    path = local_path(info.uri)
    return sha256_file(path) if info.size <= _HASH_LOCAL_UP_TO else str(path.stat().st_mtime_ns)
