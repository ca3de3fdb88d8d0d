"""Directories that pass between steps: written beside, renamed when whole, manifest last.

``manifest.json`` says what the directory holds (``kind``, ``files`` with size and sha256), which
configuration and inputs made it, and its ``fingerprint``: a hash of content and configuration only, so
that the same work gives the same fingerprint wherever and whenever it is done. Its ``checksum`` covers every
other field of the manifest, so that a changed byte in it is noticed like a changed byte of a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentrec import __version__
from latentrec.core import UserError, config_to_dict
from latentrec.storage.names import check_file_entries, check_relative_name
from latentrec.storage.output import MANIFEST, OutputFolder, expand_output

SCHEMA_VERSION = 2
_READABLE_VERSIONS = (1, SCHEMA_VERSION)
_CHECKSUM_SINCE = 2
_FINGERPRINT_VERSION = 1  # of the rule of _fingerprint; a new schema alone must not change fingerprints
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
        """Serialise with stable key order; ``extra`` keys stand at the top level, ``checksum`` covers all."""
        body = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "extra"}
        body = json.loads(json.dumps({**body, **self.extra}))  # keys become text before they are sorted
        return json.dumps({**body, "checksum": _checksum(body)}, indent=2, sort_keys=True) + "\n"


class ArtifactWriter:
    """Context manager that makes an artifact directory appear whole or not at all.

    Write files under :attr:`path`; set :attr:`counts` and :attr:`extra`; on a clean exit the manifest is
    written last and the directory takes the place of ``output``. On an exception nothing stays behind, and
    what stood at ``output`` stays: see :mod:`latentrec.storage.output` for what may be replaced.

    Args:
        output: the directory to make.
        kind: ``dataset``, ``model`` or ``evaluation``.
        config: the frozen dataclass (or dictionary) that made it.
        inputs: name → fingerprint of each artifact read.
        unhashed: names of files (reports, logs) that do not enter the fingerprint.
        identity: the part of the configuration that enters the fingerprint (where inputs lie, say, does
            not belong); all of it by default.
        sources: locations that are read; ``output`` may neither hold nor lie in one of them.
        keep_equal: where an artifact of the same fingerprint stands already, leave it untouched: others may
            be reading it.

    Raises:
        UserError: on entering, ``output`` must not be replaced or cannot be written.
    """

    def __init__(
        self,
        output: str | Path,
        kind: str,
        config: Any,
        inputs: dict[str, str] | None = None,
        unhashed: Iterable[str] = ("report.html",),
        identity: dict[str, Any] | None = None,
        sources: Iterable[str | Path | None] = (),
        keep_equal: bool = False,
    ):
        self.output = expand_output(output)
        self.kind = kind
        self.config = config if isinstance(config, dict) else config_to_dict(config)
        self.identity = self.config if identity is None else identity
        self.inputs = dict(inputs or {})
        self.counts: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.manifest: Manifest | None = None
        self._unhashed = set(unhashed)
        self._sources = tuple(sources)
        self._keep_equal = keep_equal
        self._folder: OutputFolder | None = None

    @property
    def path(self) -> Path:
        """The working directory; it becomes ``output``."""
        assert self._folder is not None, "entered by `with`"
        return self._folder.path

    def __enter__(self) -> ArtifactWriter:
        """Open the working directory."""
        self._folder = OutputFolder(self.output, kind=self.kind, inputs=self._sources)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Seal the directory and put it in place, or remove what was begun."""
        assert self._folder is not None
        if error is not None:
            self._folder.discard()
            return
        try:
            self._seal()
        except BaseException:
            self._folder.discard()
            raise
        if self._keep_equal and self._stands_already():
            self._folder.discard()
        else:
            self._folder.commit()

    def _stands_already(self) -> bool:
        assert self.manifest is not None
        try:
            return read_manifest(self.output, self.kind).fingerprint == self.manifest.fingerprint
        except UserError:
            return False

    def _seal(self) -> None:
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
            f"{directory}: no {MANIFEST}{reason}; it is not a finished {kind or 'artifact'} directory"
        ) from None
    manifest = parse_manifest(data, str(path))
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
        UserError: it is none, of another schema, changed since it was written, or names files outside.
    """
    cure = "run the step that makes it again"
    if len(data) > MAX_MANIFEST_BYTES:
        raise UserError(f"{location}: larger than {MAX_MANIFEST_BYTES >> 20} MB, not a manifest; {cure}")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{location}: not a manifest ({reason}); {cure}") from None
    if not isinstance(body, dict):
        raise UserError(f"{location}: not a manifest (a JSON {type(body).__name__}); {cure}")
    version = body.get("schema_version")
    if isinstance(version, bool) or version not in _READABLE_VERSIONS:
        raise UserError(
            f"{location}: schema_version is {ascii(version)[:40]}, this version reads {SCHEMA_VERSION}; "
            f"{cure}"
        )
    found = body.pop("checksum", None)
    if (found is not None or version >= _CHECKSUM_SINCE) and found != _checksum(body):
        raise UserError(f"{location}: changed since it was written (its checksum does not fit); {cure}")
    known = {name: body.pop(name) for name in Manifest.__dataclass_fields__ if name in body}
    for name, expected in _FIELD_TYPES.items():
        if name not in known and name != "created_by":
            raise UserError(f"{location}: not a manifest (no {name!r}); {cure}")
        if name in known and not isinstance(known[name], expected):
            raise UserError(f"{location}: {name!r} is no {expected.__name__}; {cure}")
    check_file_entries(known["files"], location)
    for name in known["files"]:
        if name == MANIFEST:
            raise UserError(f"{location}: the manifest lists itself; {cure}")
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
    body = json.dumps([_FINGERPRINT_VERSION, kind, config, content], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()
