"""Whole artifact directories up and down, with the manifest last."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from latentrec.core import UserError
from latentrec.storage.manifest import MANIFEST, Manifest, difference_from, parse_manifest, read_manifest
from latentrec.storage.output import replacing
from latentrec.storage.transfer import workers
from latentrec.storage.types import ABSENT, PreconditionFailed, StorageError
from latentrec.storage.uri import join, store_for

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
            f"{uri}: another writer finished an artifact there first; choose another location",
            code="storage.other_writer",
        ) from None
    return manifest


def download_directory(uri: str, destination: str | Path) -> Manifest:
    """Copy an artifact to a local directory, which appears whole and verified, or not at all.

    Args:
        uri: where :func:`upload_directory` or :class:`ArtifactWriter` put it.
        destination: the directory to make; see :mod:`latentrec.storage.output` for what may be replaced.

    Raises:
        UserError: no finished artifact stands at ``uri``.
        StorageError: a file is missing or not the one that the manifest describes, or storage failed.
    """
    manifest = _standing_manifest(uri)
    if manifest is None:
        raise UserError(f"{uri}: no {MANIFEST}; it is not a finished directory", code="manifest.not_found")
    store = store_for(uri)

    def download(name: str) -> None:
        path, expected = folder / name, manifest.files[name]
        try:
            store.download_file(join(uri, name), path)
        except FileNotFoundError:
            raise StorageError(
                f"{join(uri, name)} is missing; run the step that makes it again",
                code="manifest.changed_files",
            ) from None
        if (found := difference_from(path, expected)) is not None:
            raise StorageError(
                f"{join(uri, name)} is not the file that the manifest describes ({found})",
                code="manifest.changed_files",
            )

    with replacing(destination, kind=manifest.kind, inputs=[uri]) as folder:
        _for_each_file(download, {name: entry["bytes"] for name, entry in manifest.files.items()})
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


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
