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
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.core.redact import redact_values
from latentrec.core.settings import STEP_MLFLOW_RUN_VARIABLE
from latentrec.storage.manifest import MANIFEST, Manifest, describe_file, read_manifest
from latentrec.storage.output import OutputFolder
from latentrec.storage.output_checks import expand_output

_FINGERPRINT_VERSION = 1  # of the rule of _fingerprint; a new schema alone must not change fingerprints


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
        unhashed: Iterable[str] = ("report.html", "training_curve.json"),
        identity: dict[str, Any] | None = None,
        sources: Iterable[str | Path | None] = (),
        keep_equal: bool = False,
    ):
        self.output = expand_output(output)
        self.kind = kind
        self.config = redact_values(config if isinstance(config, dict) else config.to_dict())
        self.identity = self.config if identity is None else identity
        self.inputs = dict(inputs or {})
        self.counts: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self._manifest: Manifest | None = None
        self._unhashed = set(unhashed)
        self._sources = tuple(sources)
        self._keep_equal = keep_equal
        self._folder: OutputFolder | None = None

    @property
    def path(self) -> Path:
        """The working directory; it becomes ``output``."""
        assert self._folder is not None, "entered by `with`"
        return self._folder.path

    @property
    def manifest(self) -> Manifest:
        """What the finished directory says of itself; there once the context has ended."""
        assert self._manifest is not None, "the context has not ended"
        return self._manifest

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
        try:
            return read_manifest(self.output, self.kind).fingerprint == self.manifest.fingerprint
        except UserError:
            return False

    def _seal(self) -> None:
        files = {name: describe_file(self.path / name) for name in _files_below(self.path)}
        self._manifest = Manifest(
            kind=self.kind,
            fingerprint=_fingerprint(self.kind, self.identity, files, self._unhashed),
            config=redact_values(self.config),
            inputs=self.inputs,
            counts=self.counts,
            files=files,
            extra=redact_values({**_recorded_by(), **self.extra}),
        )
        manifest_path = self.path / MANIFEST
        manifest_path.write_text(self.manifest.to_json(), encoding="utf-8")
        with manifest_path.open("rb") as stream:
            os.fsync(stream.fileno())


def _recorded_by() -> dict[str, str]:
    """The step's MLflow run, so that a step served from a cache can be linked; no part of the fingerprint."""
    run_id = os.environ.get(STEP_MLFLOW_RUN_VARIABLE)
    return {"mlflow_run_id": run_id} if run_id else {}


def _files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def _fingerprint(
    kind: str, config: dict[str, Any], files: dict[str, dict[str, Any]], unhashed: set[str]
) -> str:
    content = {name: entry["sha256"] for name, entry in files.items() if name not in unhashed}
    body = json.dumps([_FINGERPRINT_VERSION, kind, config, content], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()
