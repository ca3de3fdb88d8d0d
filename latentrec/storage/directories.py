"""Whole directories and sets of input files: up and down with the manifest last, listed, fingerprinted."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.storage.local import local_path
from latentrec.storage.manifest import MANIFEST, Manifest, parse_manifest, read_manifest, sha256_file
from latentrec.storage.output import replacing
from latentrec.storage.transfer import workers
from latentrec.storage.types import ABSENT, ObjectInfo, PreconditionFailed, StorageError, Store
from latentrec.storage.uri import is_local, join, scheme_of, store_for

_HASH_LOCAL_UP_TO = 64 << 20
_LARGE = 64 << 20


def upload_directory(directory: str | Path, uri: str, *, replace: bool = False) -> Manifest:
    """Copy an artifact directory to ``uri``, manifest last: a reader sees all of it or no artifact.

    A finished artifact is not overwritten: the same one is left as it is, another one is refused, unless
    ``replace`` is set. Then its manifest goes first, so that no reader ever takes a mixture for an artifact.

    Raises:
        UserError: ``directory`` is not a finished artifact, or another one stands at ``uri``.
        StorageError: storage failed; there is no artifact at ``uri`` (or still the old one).
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    store, manifest_uri = store_for(uri), join(uri, MANIFEST)
    standing = _standing_manifest(uri)
    if standing is not None:
        if standing.to_json() == manifest.to_json():
            return manifest
        if not replace:
            raise UserError(
                f"{uri} already holds a {standing.kind} (fingerprint {standing.fingerprint[:12]}…), not this "
                f"one ({manifest.fingerprint[:12]}…); choose another location",
                code="output.other_artifact",
            )
        store.delete(manifest_uri)

    def upload(name: str) -> None:
        store.upload_file(directory / name, join(uri, name))

    sizes = {name: entry["bytes"] for name, entry in manifest.files.items()}
    _for_each_file(upload, sizes)
    try:
        store.write_bytes(manifest_uri, manifest.to_json().encode(), if_version=ABSENT)
    except PreconditionFailed:
        raise StorageError(
            f"{uri}: another writer finished an artifact there first; choose another location"
        ) from None
    return manifest


def download_directory(uri: str, destination: str | Path, kind: str | None = None) -> Manifest:
    """Copy an artifact to a local directory, which appears whole and verified, or not at all.

    Args:
        uri: where :func:`upload_directory` or :class:`ArtifactWriter` put it.
        destination: the directory to make; see :mod:`latentrec.storage.output` for what may be replaced.
        kind: what it must be; ``None`` accepts any.

    Raises:
        UserError: no finished artifact stands at ``uri``, or one of another kind.
        StorageError: a file is missing or not the one that the manifest describes, or storage failed.
    """
    manifest = _standing_manifest(uri)
    if manifest is None:
        raise UserError(
            f"{uri}: no {MANIFEST}; it is not a finished {kind or 'artifact'} directory",
            code="manifest.not_found",
        )
    if kind is not None and manifest.kind != kind:
        raise UserError(f"{uri} is a {manifest.kind}, expected a {kind}", code="manifest.other_kind")
    store = store_for(uri)

    def download(name: str) -> None:
        path, expected = folder / name, manifest.files[name]
        try:
            store.download_file(join(uri, name), path)
        except FileNotFoundError:
            raise StorageError(f"{join(uri, name)} is missing; run the step that makes it again") from None
        size, digest = path.stat().st_size, sha256_file(path)
        if (size, digest) != (expected["bytes"], expected["sha256"]):
            raise StorageError(
                f"{join(uri, name)} is not the file that the manifest describes ({size} bytes, "
                f"{digest[:12]}…, expected {expected['bytes']} bytes, {expected['sha256'][:12]}…)"
            )

    with replacing(destination, kind=kind or manifest.kind, inputs=[uri]) as folder:
        _for_each_file(download, {name: entry["bytes"] for name, entry in manifest.files.items()})
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


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
    """(name below ``base``, object) of what counts as an input there."""
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


def _standing_manifest(uri: str) -> Manifest | None:
    location = join(uri, MANIFEST)
    try:
        return parse_manifest(store_for(uri).read_bytes(location), location)
    except FileNotFoundError:
        return None


def _for_each_file(action: Callable[[str], None], sizes: dict[str, int]) -> None:
    """Small files at once; large ones one after the other, each parallel in itself."""
    large = [name for name, size in sizes.items() if size > _LARGE]
    small = [name for name in sizes if name not in set(large)]
    with ThreadPoolExecutor(workers(), thread_name_prefix="files") as pool:
        try:
            for _ in pool.map(action, small):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for name in large:
        action(name)
