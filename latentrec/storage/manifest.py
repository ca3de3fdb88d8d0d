"""``manifest.json``: what an artifact directory says of itself; written last, checked before it is used."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentrec import __version__
from latentrec.core import UserError
from latentrec.core.documents import parse_document
from latentrec.storage.names import check_file_entries, check_relative_name

MANIFEST = "manifest.json"
SCHEMA_VERSION = 4
"""Since 4, ``config`` has ``ablation`` groups and today's field names; earlier ones differ in that only."""
_READABLE_VERSIONS = (1, 2, 3, SCHEMA_VERSION)
_CHECKSUM_SINCE = 2
MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Manifest:
    """The content of a ``manifest.json``; ``extra`` holds what is particular to a kind (window, source…)."""

    kind: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, Any]
    files: dict[str, dict[str, Any]]
    created_by: str = f"latentrec {__version__}"
    schema_version: int = SCHEMA_VERSION
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Serialize with stable key order; ``extra`` keys stand at the top level, ``checksum`` covers all."""
        body = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "extra"}
        body = json.loads(json.dumps({**body, **self.extra}))  # keys become text before they are sorted
        return json.dumps({**body, "checksum": _checksum(body)}, indent=2, sort_keys=True) + "\n"


def read_manifest(directory: str | Path, kind: str | None = None, *, verify: bool = True) -> Manifest:
    """Read and check the manifest of an artifact directory.

    Args:
        directory: the artifact.
        kind: what it must be; ``None`` accepts any.
        verify: compare every file's size and sha256 with the manifest.

    Raises:
        UserError: no manifest (not an artifact, or a step that did not finish), another kind or schema,
            or a file that is missing or not the one that was written.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        reason = "" if isinstance(error, FileNotFoundError | NotADirectoryError) else f" ({error.strerror})"
        raise UserError(
            f"{directory}: no {MANIFEST}{reason}; it is not a finished {kind or 'artifact'} directory",
            code="manifest.not_found",
        ) from None
    manifest = parse_manifest(data, str(path))
    if kind is not None and manifest.kind != kind:
        raise UserError(f"{directory} is a {manifest.kind}, expected a {kind}", code="manifest.other_kind")
    if verify:
        for name, expected in manifest.files.items():
            found = describe_file(directory / name) if (directory / name).is_file() else None
            if found != expected:
                state = (
                    "missing"
                    if found is None
                    else f"changed ({found['bytes']} bytes, {found['sha256'][:12]}…)"
                )
                raise UserError(
                    f"{directory / name} is {state}, the manifest says {expected['bytes']} bytes, "
                    f"{expected['sha256'][:12]}…; run the step that makes it again",
                    code="manifest.changed_files",
                )
    return manifest


@contextmanager
def listed_files(directory: str | Path, manifest: Manifest) -> Iterator[Path]:
    """Yield a folder with the files that the manifest lists and no other, as links.

    For loaders that look for optional files by themselves (Hugging Face's adapters, token maps): a file that
    was planted beside the verified ones is not seen.
    """
    source = Path(directory).resolve()
    with tempfile.TemporaryDirectory(prefix="latentrec-listed-") as folder:
        view = Path(folder) / "artifact"
        view.mkdir()
        for name in (MANIFEST, *manifest.files):
            link = view / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source / name)
        yield view


def parse_manifest(data: bytes, location: str) -> Manifest:
    """Read and check the text of a manifest; ``location`` is for the message.

    Raises:
        UserError: it is not a manifest, is of another schema, was changed since it was written, or names
            files outside its directory.
    """
    cure = "run the step that makes it again"
    if len(data) > MAX_MANIFEST_BYTES:
        raise UserError(
            f"{location}: larger than {MAX_MANIFEST_BYTES >> 20} MB, not a manifest; {cure}",
            code="manifest.invalid",
        )
    try:
        body = parse_document(data)
    except ValueError as error:
        raise UserError(f"{location}: not a manifest ({error}); {cure}", code="manifest.invalid") from None
    if not isinstance(body, dict):
        raise UserError(
            f"{location}: not a manifest (a JSON {type(body).__name__}); {cure}", code="manifest.invalid"
        )
    version = body.get("schema_version")
    if isinstance(version, bool) or version not in _READABLE_VERSIONS:
        raise UserError(
            f"{location}: schema_version is {ascii(version)[:40]}, this version reads {SCHEMA_VERSION}; "
            f"{cure}",
            code="manifest.other_version",
        )
    found = body.pop("checksum", None)
    if (found is not None or version >= _CHECKSUM_SINCE) and found != _checksum(body):
        raise UserError(
            f"{location}: changed since it was written (its checksum does not fit); {cure}",
            code="manifest.changed_files",
        )
    known = {name: body.pop(name) for name in Manifest.__dataclass_fields__ if name in body}
    for name, expected in _FIELD_TYPES.items():
        if name not in known and name != "created_by":
            raise UserError(f"{location}: not a manifest (no {name!r}); {cure}", code="manifest.invalid")
        if name in known and not isinstance(known[name], expected):
            raise UserError(
                f"{location}: {name!r} is no {expected.__name__}; {cure}", code="manifest.invalid"
            )
    check_file_entries(known["files"], location)
    for name in known["files"]:
        if name == MANIFEST:
            raise UserError(f"{location}: the manifest lists itself; {cure}", code="manifest.invalid")
    check_relative_name(known["kind"], location)
    return Manifest(**known, extra=body)


_FIELD_TYPES: dict[str, type] = {
    "kind": str,
    "fingerprint": str,
    "config": dict,
    "inputs": dict,
    "counts": dict,
    "files": dict,
    "created_by": str,
}


def _checksum(body: dict[str, Any]) -> str:
    """Hash of every field but the checksum; ``body`` as JSON gives it back."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def difference_from(path: Path, entry: Mapping[str, Any]) -> str | None:
    """How a file differs from its entry in a manifest or an index (size, sha256); ``None`` if it does not."""
    size, digest = path.stat().st_size, sha256_file(path)
    if (size, digest) == (entry["bytes"], entry["sha256"]):
        return None
    return f"{size} bytes, {digest[:12]}…, expected {entry['bytes']} bytes, {entry['sha256'][:12]}…"


def sha256_file(path: Path) -> str:
    """Hash a file of any size with bounded memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe_file(path: Path) -> dict[str, Any]:
    """A file's entry in a manifest: size in bytes and sha256."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
