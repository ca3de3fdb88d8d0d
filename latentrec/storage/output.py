"""Where an artifact may be put: decided before work begins, replaced only when the new one is whole.

Every ``--output`` and every destination of a download goes through here, so that nothing of the user's is
ever lost: what stands at the output is replaced only if it is empty or an artifact of ours, and only by the
final rename. Work happens in a hidden folder beside it (inside it, where the output is a mount point).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from latentrec.core import UserError
from latentrec.storage.local import fsync_directory
from latentrec.storage.manifest import MANIFEST
from latentrec.storage.output_checks import (
    REPLACING,
    WORKING,
    Lister,
    artifact_by_manifest,
    check_output,
    check_replaceable,
    expand_output,
    in_progress,
    is_folder,
    relative_files,
)

_OLD = "latentrec-replaced-"


class OutputFolder:
    """A folder being made: work in :attr:`path`, then :meth:`commit` or :meth:`discard`.

    Opening checks what :func:`check_output` checks and removes what killed attempts left beside the output.
    """

    def __init__(
        self,
        output: str | Path,
        *,
        kind: str | None = None,
        inputs: Iterable[str | Path | None] = (),
        artifact_in: Lister | None = None,
        option: str = "--output",
    ):
        """Make the working folder.

        Raises:
            UserError: as :func:`check_output`.
        """
        self._kind, self._artifact_in, self._option = kind, artifact_in, option
        path = expand_output(output, option)
        _recover(path)
        self.output = check_output(path, kind=kind, inputs=inputs, artifact_in=artifact_in, option=option)
        self._mounted = os.path.ismount(self.output)
        beside = self.output if self._mounted else self.output.parent
        with _explained(beside, option):
            beside.mkdir(parents=True, exist_ok=True)
            _remove_stale(beside, self.output.name)
            self.path = beside / f".{self.output.name}.{WORKING}{secrets.token_hex(6)}"
            self.path.mkdir()  # not mkdtemp: the next step may run as another user
        self._lock = _lock(self.path)

    def commit(self) -> None:
        """Put the folder in the place of the output.

        Raises:
            UserError: files of the user's were put there meanwhile; the finished folder is kept
                beside it, and the message says where.
        """
        try:
            check_replaceable(
                self.output, kind=self._kind, artifact_in=self._artifact_in, option=self._option
            )
        except UserError as error:
            kept = _free_name(self.output)
            os.rename(self.path, kept)
            self._release()
            raise UserError(
                f"{error} (the finished folder is kept as {kept})", code="output.kept_elsewhere"
            ) from None
        if self._mounted:
            self._move_in()
        else:
            self._swap()
        self._release()

    def discard(self) -> None:
        """Remove what was begun; the output stays as it was."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._release()

    def _swap(self) -> None:
        old = lock = None
        if self.output.exists():
            holder = Path(tempfile.mkdtemp(prefix=f".{self.output.name}.{_OLD}", dir=self.output.parent))
            lock, old = _lock(holder), holder / "old"
            os.rename(self.output, old)
        try:
            os.rename(self.path, self.output)
        except OSError:
            if old is not None:
                os.rename(old, self.output)
                old.parent.rmdir()
            raise
        finally:
            if lock is not None:
                os.close(lock)
        fsync_directory(self.output.parent)
        if old is not None:
            shutil.rmtree(old.parent, ignore_errors=True)

    def _move_in(self) -> None:
        """Replace the files of an output that is a mount point, which cannot be renamed.

        The old manifest is removed first and the new one written last: a reader finds one artifact or none.
        """
        new = sorted(relative_files(self.path))
        found = (self._artifact_in or artifact_by_manifest)(self.output)
        names = set(new) | (found[1] if found else set())
        marker = self.output / REPLACING
        marker.write_text(json.dumps({"kind": self._kind or "", "names": sorted(names)}), encoding="utf-8")
        (self.output / MANIFEST).unlink(missing_ok=True)
        for entry in list(self.output.iterdir()):
            if entry not in (self.path, marker) and not in_progress(entry.name):
                shutil.rmtree(entry) if is_folder(entry) else entry.unlink()
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == MANIFEST):
            os.rename(entry, self.output / entry.name)
        fsync_directory(self.output)
        self.path.rmdir()
        marker.unlink()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextlib.contextmanager
def replacing(
    output: str | Path,
    *,
    kind: str | None = None,
    inputs: Iterable[str | Path | None] = (),
    artifact_in: Lister | None = None,
    option: str = "--output",
) -> Iterator[Path]:
    """Yield an empty folder; it takes the output's place at the end, and is removed on an error.

    Raises:
        UserError: as :class:`OutputFolder`.
    """
    folder = OutputFolder(output, kind=kind, inputs=inputs, artifact_in=artifact_in, option=option)
    try:
        yield folder.path
    except BaseException:
        folder.discard()
        raise
    folder.commit()


@contextlib.contextmanager
def _explained(folder: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free space or choose another place" if full else "choose another place"
        raise UserError(
            f"{option}: {folder} cannot be written ({error.strerror}); {cure}", code="output.not_writable"
        ) from None


def _recover(output: Path) -> None:
    """Put back what a process that was killed between the two renames of a swap had moved aside."""
    if not output.parent.is_dir():
        return
    for holder in output.parent.glob(f".{_escaped(output.name)}.{_OLD}*"):
        lock = _lock(holder)
        if lock is None:  # a living process is between the two renames
            continue
        if not os.path.lexists(output) and (holder / "old").is_dir():
            os.rename(holder / "old", output)
        shutil.rmtree(holder, ignore_errors=True)
        os.close(lock)


def _remove_stale(folder: Path, name: str) -> None:
    """Working folders of killed attempts: those that no living process has locked."""
    for path in folder.glob(f".{_escaped(name)}.{WORKING}*"):
        lock = _lock(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _lock(path: Path) -> int | None:
    """Lock a folder for this process; ``None`` where another has it or locks are not kept there."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _escaped(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _free_name(path: Path) -> Path:
    number = 1
    while os.path.lexists(candidate := path.with_name(f"{path.name}-{number}")):
        number += 1
    return candidate
