"""Checkpoints of a step: atomic, resumable, and safe when two attempts of the same step overlap.

All checkpoints of one piece of work live under ``<root>/<step>-<key>/``, where the key is a hash of (step,
configuration, dataset, parent model): a retry finds them, different work never meets them.

    index.json                      the only object that is ever rewritten
    <checkpoint id>/<file> ...      immutable, under a name that no other attempt can choose

``index.json`` lists the checkpoints with the size and sha256 of every file, and holds the *fencing token*.
Opening a store for writing raises the token by compare-and-swap; a save uploads its files first and then
swaps the index against the version that this attempt wrote last. So a reader sees the old index or the new
one, whole, and an attempt that has been replaced cannot publish anything: its swap fails.

The index also names the pipeline run that writes. A replaced attempt of the same run must stop: a retry has
its work. When *another* run of the same work starts meanwhile (a form sent twice, a schedule beside a manual
run), both are wanted: the later one resumes from the shared checkpoints and owns them from then on, and the
earlier one moves, at its next save, to ``<root>/<step>-<key>-<hash of its run>/`` and goes on there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import tempfile
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latentrec.core import Config, UserError
from latentrec.core.redact import redact_values
from latentrec.core.settings import RUN_ID_VARIABLE
from latentrec.storage.checkpoint_files import (
    CheckpointInfo,
    delete_files,
    explained,
    info_of,
    is_intact,
    restore_files,
    upload_file,
)
from latentrec.storage.checkpoint_index import INDEX, SCHEMA_VERSION, Index, parse_index
from latentrec.storage.local import local_path
from latentrec.storage.types import ABSENT, PreconditionFailed, StorageError, Store
from latentrec.storage.uri import is_local, join, store_for

KEEP_LAST = 2
"""Latest checkpoints that are kept; the best is kept besides."""
_ACQUIRE_ATTEMPTS = 200

_logger = logging.getLogger(__name__)


class StaleAttempt(RuntimeError):
    """A newer attempt of the same step has taken over; this one must stop and can change nothing more."""


class _OtherRunTookOver(StaleAttempt):
    """Another pipeline run, ``run``, does the same work and owns the checkpoints now."""

    def __init__(self, message: str, run: str):
        super().__init__(message)
        self.run = run


class CheckpointStore:
    """The checkpoints of one piece of work. Make it with :meth:`for_work`.

    Not safe for use by several threads at once.
    """

    def __init__(
        self,
        uri: str,
        work: dict[str, Any],
        *,
        run: str = "",
        store: Store | None = None,
    ):
        """Open for reading; :meth:`acquire` makes this attempt the writer.

        ``run`` is the pipeline run that this attempt belongs to, empty outside a pipeline.
        """
        self.uri = uri
        self._store = store if store is not None else store_for(uri)
        self._shared, self._run = uri, run
        self._index = Index(work=work)
        self._writer = False

    @classmethod
    def for_work(
        cls,
        root: str,
        *,
        step: str,
        config: Any,
        dataset: str,
        parent: str | None,
        acquire: bool = True,
    ) -> CheckpointStore:
        """Open the checkpoints of one piece of work, and become its only writer.

        Args:
            root: ``--checkpoint-root``, a directory or ``gs://`` location.
            step: name of the step (``sft``, ``grpo``…).
            config: the step's configuration (frozen dataclass or dictionary).
            dataset: fingerprint of the dataset.
            parent: fingerprint of the model that training starts from, or ``None``.
            acquire: ``False`` opens for reading only (every rank but the first).

        The pipeline run is read from ``LATENTREC_RUN_ID``.

        Raises:
            UserError: the root cannot be reached or written.
            StorageError: storage failed for longer than the retries bear.
        """
        settings = redact_values(config.result_fields() if isinstance(config, Config) else dict(config))
        work = {"step": step, "config": settings, "dataset": dataset, "parent": parent}
        body = json.dumps([SCHEMA_VERSION, work], sort_keys=True)
        key = hashlib.sha256(body.encode()).hexdigest()[:24]
        uri = join(str(root), f"{step}-{key}")
        run = os.environ.get(RUN_ID_VARIABLE, "")
        store = cls(uri, json.loads(json.dumps(work)), run=run)
        if acquire:
            store.acquire()
        return store

    @property
    def token(self) -> int:
        """The fencing token of this attempt; 0 when opened for reading."""
        return self._index.token if self._writer else 0

    def acquire(self) -> int:
        """Become the writer: raise the fencing token, which shuts out every earlier attempt."""
        holder = uuid.uuid4().hex
        with explained(self.uri, "the checkpoint store could not be opened"):
            self._find_own()
            for attempt in range(_ACQUIRE_ATTEMPTS):
                index = self._read_index()
                index.token += 1
                index.holder, index.run = holder, self._run
                if self._swap(index):
                    self._index, self._writer = index, True
                    return index.token
                time.sleep(random.uniform(0, min(0.005 * 2 ** min(attempt, 6), 0.25)))
        raise StorageError(
            f"{self.uri}: too many attempts open these checkpoints at once; retry later",
            code="storage.other_writer",
        )

    def save(self, directory: Path, step: int, *, metadata: dict[str, Any], best: bool = False) -> None:
        """Publish the content of ``directory`` as the checkpoint of ``step``, whole or not at all.

        Args:
            directory: its files, in subdirectories or not, are the checkpoint.
            step: the trainer's step; a later save is newer, whatever its step.
            metadata: JSON values to be kept beside it.
            best: whether it is the best so far; the best is kept until another one is better.

        Raises:
            StaleAttempt: a newer attempt has taken over; nothing was published.
            StorageError: storage is full or failing; the checkpoints before this one are intact.
        """
        try:
            self._save(Path(directory), step, metadata, best)
        except _OtherRunTookOver as error:
            self._move_apart(error)
            self._save(Path(directory), step, metadata, best)

    def latest(self) -> CheckpointInfo | None:
        """The newest checkpoint whose files are all there and unchanged, or ``None``.

        Sizes and checksums are compared with the index (locally by reading, on Google Cloud Storage by the
        service's own crc32c), so a damaged checkpoint is passed over for the one before it.
        """
        index = self._read_current()
        for entry in reversed(index.checkpoints):
            if is_intact(self._store, self.uri, entry):
                return info_of(self.uri, entry)
        return None

    def best(self) -> CheckpointInfo | None:
        """The checkpoint last saved with ``best=True``, or ``None`` where there is none or it is damaged."""
        index = self._read_current()
        for entry in index.checkpoints:
            if entry["id"] == index.best and is_intact(self._store, self.uri, entry):
                return info_of(self.uri, entry)
        return None

    def restore(self, info: CheckpointInfo, destination: Path) -> None:
        """Copy a checkpoint to a local directory, which appears whole and verified, or not at all.

        What stands there is replaced only if it is empty or a checkpoint of the same files.

        Raises:
            UserError: another folder stands at ``destination``.
            StorageError: a file is missing or is not the one that was saved, or storage fails.
        """

        restore_files(self._store, info, destination)

    def clear(self) -> None:
        """Remove every checkpoint of this work; the token stays, so that older attempts stay shut out.

        Raises:
            StaleAttempt: a newer attempt has taken over; nothing was removed.
        """
        self._refuse_if_stale(None)
        old = list(self._index.checkpoints)
        self._commit(checkpoints=[], best=None)
        for entry in old:
            delete_files(self._store, self.uri, entry)

    def _save(self, directory: Path, step: int, metadata: dict[str, Any], best: bool) -> None:
        self._refuse_if_stale(step)
        name = f"{step:010d}-t{self._index.token}-{uuid.uuid4().hex[:12]}"
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        if not paths:
            raise UserError(
                f"{directory}: no files to save as the checkpoint of step {step}", code="checkpoint.empty"
            )
        folder = join(self.uri, name)
        consequence = f"the checkpoint of step {step} was not saved, earlier ones are intact"
        with explained(self.uri, consequence, lambda: self._take_back(name)):
            files = {
                path.relative_to(directory).as_posix(): upload_file(self._store, path, directory, folder)
                for path in paths
            }
            entry = {"id": name, "step": step, "metadata": metadata, "created": time.time(), "files": files}
            dropped = self._publish(entry, best)
        for old in dropped:
            delete_files(self._store, self.uri, old)

    def _publish(self, entry: dict[str, Any], best: bool) -> list[dict[str, Any]]:
        """Swap in an index with ``entry``; returns the entries that it no longer names."""
        entries = [*self._index.checkpoints, entry]
        best_id = entry["id"] if best else self._index.best
        last = {kept["id"] for kept in entries[-KEEP_LAST:]}
        kept = [one for one in entries if one["id"] in last or one["id"] == best_id]
        self._commit(checkpoints=kept, best=best_id)
        return [one for one in entries if one not in kept]

    def _commit(self, **changes: Any) -> None:
        """Swap the index against the version that this attempt wrote last."""
        index = Index(**{**asdict(self._index), **changes})
        if not self._swap(index):
            raise self._stale(self._read_index())
        self._index = index

    def _swap(self, index: Index) -> bool:
        """Compare-and-swap ``index``; sets its ``version``. False when another writer was there first."""
        uri = join(self.uri, INDEX)
        data = index.to_bytes()
        try:
            index.version = self._store.write_bytes(uri, data, if_version=index.version or ABSENT).version
        except PreconditionFailed:
            return False
        return True

    def _read_current(self) -> Index:
        """The index that counts for this attempt; one that only reads follows its run's writer."""
        if not self._writer:
            self._find_own()
        return self._read_index()

    def _read_index(self) -> Index:
        uri = join(self.uri, INDEX)
        info = self._store.stat(uri)
        if info is None:
            return Index(work=self._index.work)
        try:
            # The content may be newer than the version, never older; a swap then fails, as it must.
            data = self._store.read_bytes(uri)
        except FileNotFoundError:
            return Index(work=self._index.work)
        index = parse_index(data, uri, f"remove {self.uri} or choose another --checkpoint-root")
        index.version = info.version
        return index

    def _refuse_if_stale(self, step: int | None) -> None:
        if not self._writer:
            raise UserError(
                f"{self.uri} was opened for reading; only the attempt that acquired it may write",
                code="checkpoint.read_only",
            )
        info = self._store.stat(join(self.uri, INDEX))
        if info is not None and info.version == self._index.version:
            return
        found = self._read_index()
        if found.holder != self._index.holder:
            raise self._stale(found, step)
        self._index = found  # a swap of this attempt whose answer was lost

    def _stale(self, found: Index, step: int | None = None) -> StaleAttempt:
        """The error of an attempt that meets the index ``found`` of another writer."""
        what = "nothing was changed" if step is None else f"the checkpoint of step {step} was not saved"
        tokens = f"token {found.token}, this one has {self._index.token}"
        attempts = f"{self.uri}: a newer attempt of this step ({tokens})"
        if self._run and found.run and found.run != self._run:
            return _OtherRunTookOver(f"{attempts} belongs to run {found.run}; {what}", found.run)
        return StaleAttempt(f"{attempts} has taken over; {what}. This attempt must stop")

    def _own_uri(self) -> str:
        """Where this run keeps its checkpoints once another run of the same work owns the shared ones."""
        return f"{self._shared}-{hashlib.sha256(self._run.encode()).hexdigest()[:12]}"

    def _find_own(self) -> None:
        """Use this run's own checkpoints where it has any: it was moved to them before it was restarted."""
        if self._run and self._store.stat(join(self._own_uri(), INDEX)) is not None:
            self.uri = self._own_uri()

    def _move_apart(self, reason: _OtherRunTookOver) -> None:
        """Go on in this run's own folder, and take the best checkpoint so far along.

        Raises:
            StaleAttempt: the best checkpoint is gone, so that this attempt's result would be another one.
        """
        before = self._index
        best = next((entry for entry in before.checkpoints if entry["id"] == before.best), None)
        with tempfile.TemporaryDirectory(prefix="latentrec-checkpoint-") as folder:
            if best is not None and not self._fetch_again(best, Path(folder)):
                raise reason
            self.uri, self._index = self._own_uri(), Index(work=before.work)
            self.acquire()
            _logger.warning(
                "run %s does the same work and has taken over the checkpoints in %s; "
                "this run goes on with its own in %s",
                reason.run,
                self._shared,
                self.uri,
            )
            if best is not None:
                self._save(Path(folder) / "best", best["step"], best["metadata"], True)

    def _fetch_again(self, wanted: dict[str, Any], folder: Path) -> bool:
        """Copy a checkpoint, or the one that the new owner saved at the same step, to ``folder/best``.

        The work is the same to the bit, so the owner's checkpoint of that step is as good.
        """
        same = [entry for entry in self._read_index().checkpoints if entry["step"] == wanted["step"]]
        for entry in [wanted, *same]:
            try:
                if is_intact(self._store, self.uri, entry):
                    self.restore(info_of(self.uri, entry), folder / "best")
                    return True
            except StorageError:
                continue
        return False

    def _take_back(self, name: str) -> None:
        """Remove local files of a save that failed before its index was written."""
        if is_local(self.uri) and not any(one["id"] == name for one in self._read_index().checkpoints):
            shutil.rmtree(local_path(join(self.uri, name)), ignore_errors=True)
