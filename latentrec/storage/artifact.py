"""Directories that pass between steps: written beside, renamed when whole, manifest last.

``manifest.json`` says what the directory holds (``kind``, ``files`` with size and sha256), which
configuration and inputs made it, and its ``fingerprint``: a hash of content and configuration only, so
that the same work gives the same fingerprint wherever and whenever it is done.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentrec import __version__
from latentrec.core import UserError, config_to_dict
from latentrec.storage.local import fsync_directory

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_PARTIAL_SUFFIX = ".partial"


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
        """Serialise with stable key order; ``extra`` keys stand at the top level."""
        body = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "extra"}
        return json.dumps({**body, **self.extra}, indent=2, sort_keys=True) + "\n"


class ArtifactWriter:
    """Context manager that makes an artifact directory appear whole or not at all.

    Write files under :attr:`path`; set :attr:`counts` and :attr:`extra`; on a clean exit the manifest is
    written last and the directory takes the place of ``output``. On an exception nothing stays behind.
    What stood at ``output`` before is removed at the start: a retry must not inherit half a result.

    Args:
        output: the directory to make.
        kind: ``dataset``, ``model`` or ``evaluation``.
        config: the frozen dataclass (or dictionary) that made it.
        inputs: name → fingerprint of each artifact read.
        unhashed: names of files (reports, logs) that do not enter the fingerprint.
        identity: the part of the configuration that enters the fingerprint (where inputs lie, say, does
            not belong); all of it by default.
    """

    def __init__(
        self,
        output: str | Path,
        kind: str,
        config: Any,
        inputs: dict[str, str] | None = None,
        unhashed: Iterable[str] = ("report.html",),
        identity: dict[str, Any] | None = None,
    ):
        self.output = Path(output)
        self.kind = kind
        self.config = config if isinstance(config, dict) else config_to_dict(config)
        self.identity = self.config if identity is None else identity
        self.inputs = dict(inputs or {})
        self.counts: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.manifest: Manifest | None = None
        self.path = self.output.with_name(self.output.name + _PARTIAL_SUFFIX)
        self._unhashed = set(unhashed)

    def __enter__(self) -> ArtifactWriter:
        """Clear the output and open the working directory."""
        _remove_at_once(self.output)
        _remove_at_once(self.path)
        self.path.mkdir(parents=True)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Seal the directory, or remove what was begun."""
        if error is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        files = {name: _describe(self.path / name) for name in _files_below(self.path)}
        self.manifest = Manifest(
            kind=self.kind,
            fingerprint=_fingerprint(self.kind, self.identity, files, self._unhashed),
            config=self.config,
            inputs=self.inputs,
            counts=self.counts,
            files=files,
            extra={**_recorded_by(), **self.extra},
        )
        manifest_path = self.path / MANIFEST
        manifest_path.write_text(self.manifest.to_json(), encoding="utf-8")
        with manifest_path.open("rb") as stream:
            os.fsync(stream.fileno())
        _put_in_place(self.path, self.output)


def _remove_at_once(directory: Path) -> None:
    """Remove a directory so that no moment shows a part of it: moved aside first, then emptied.

    A mount point cannot be moved; its manifest goes first, so that what is left is no artifact.
    """
    aside = directory.with_name(f".{directory.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    if not directory.exists():
        return
    try:
        os.rename(directory, aside)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        (directory / MANIFEST).unlink(missing_ok=True)
        for path in directory.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    else:
        shutil.rmtree(aside)


def _put_in_place(made: Path, output: Path) -> None:
    """Rename the finished directory; where ``output`` is a mount point, move its files in, manifest last."""
    try:
        os.rename(made, output)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        for path in sorted(made.iterdir(), key=lambda path: path.name == MANIFEST):
            shutil.move(path, output / path.name)
        fsync_directory(output)
        made.rmdir()
    fsync_directory(output.parent)


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
    if not path.is_file():
        raise UserError(f"{directory}: no {MANIFEST}; it is not a finished {kind or 'artifact'} directory")
    manifest = parse_manifest(path.read_bytes(), str(path))
    if kind is not None and manifest.kind != kind:
        raise UserError(f"{directory} is a {manifest.kind}, expected a {kind}")
    if verify:
        for name, expected in manifest.files.items():
            found = _describe(directory / name) if (directory / name).is_file() else None
            if found != expected:
                state = (
                    "missing"
                    if found is None
                    else f"changed ({found['bytes']} bytes, {found['sha256'][:12]}…)"
                )
                raise UserError(
                    f"{directory / name} is {state}, the manifest says {expected['bytes']} bytes, "
                    f"{expected['sha256'][:12]}…; run the step that makes it again"
                )
    return manifest


def parse_manifest(data: bytes, location: str) -> Manifest:
    """Read the text of a manifest; ``location`` is for the message.

    Raises:
        UserError: it is none, or of another schema.
    """
    try:
        body = json.loads(data)
        known = {name: body.pop(name) for name in Manifest.__dataclass_fields__ if name in body}
        manifest = Manifest(**known, extra=body)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{location}: not a manifest ({error}); run the step that makes it again") from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise UserError(
            f"{location}: schema_version is {manifest.schema_version}, this version reads {SCHEMA_VERSION}; "
            "run the step that makes it again"
        )
    return manifest


def sha256_file(path: Path) -> str:
    """Hash a file of any size with bounded memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _recorded_by() -> dict[str, str]:
    """The step's MLflow run, so that a step served from a cache can be linked; no part of the fingerprint."""
    run_id = os.environ.get("LATENTREC_STEP_MLFLOW_RUN")
    return {"mlflow_run_id": run_id} if run_id else {}


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def _fingerprint(
    kind: str, config: dict[str, Any], files: dict[str, dict[str, Any]], unhashed: set[str]
) -> str:
    content = {name: entry["sha256"] for name, entry in files.items() if name not in unhashed}
    body = json.dumps([SCHEMA_VERSION, kind, config, content], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()
