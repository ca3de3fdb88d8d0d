"""Which outputs may be replaced: only what is empty or ours, never an input, checked before work begins."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from latentrec.core import UserError
from latentrec.storage.local import local_path
from latentrec.storage.manifest import MANIFEST, parse_manifest
from latentrec.storage.uri import is_local

WORKING = "latentrec-writing-"
REPLACING = ".latentrec-replacing"
_HARMLESS = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""What file browsers leave behind by themselves."""

Lister = Callable[[Path], tuple[str, set[str]] | None]
"""Kind and names of the files of the artifact in a folder; ``None`` where it is none of ours."""


def expand_output(output: str | Path, option: str = "--output") -> Path:
    """The absolute path that an output names, ``~`` expanded; links in its parents stay as they are.

    Raises:
        UserError: empty, a location that is no path on this machine, or the home of an unknown user.
    """
    text = str(output)
    if not text.strip():
        raise UserError(f"{option} is empty; name the folder to make", code="output.bad_location")
    if "\0" in text:
        raise UserError(f"{option} holds a zero byte; name the folder to make", code="output.bad_location")
    if not is_local(text):
        raise UserError(
            f"{option} {text}: expected a path on this machine; copy it there afterwards",
            code="output.bad_location",
        )
    try:
        path = local_path(text)
    except RuntimeError as error:
        raise UserError(
            f"{option} {text}: {error}; give the whole path", code="output.bad_location"
        ) from None
    return Path(os.path.abspath(path))


def check_output(
    output: str | Path,
    *,
    kind: str | None = None,
    inputs: Iterable[str | Path | None] = (),
    artifact_in: Lister | None = None,
    option: str = "--output",
) -> Path:
    """Refuse an output folder that must not be replaced or cannot be written; changes nothing.

    A step calls it before it reads or trains anything.

    Args:
        output: folder to make.
        kind: what will stand there; an artifact of another kind is not replaced. ``None``: any.
        inputs: locations that the work reads; the output may neither hold nor lie in one of them.
        artifact_in: recognizes our artifacts; default: by their manifest.
        option: the flag, for messages.

    Returns:
        The absolute path.

    Raises:
        UserError: names the folder, what stands there and the cure.
    """
    path = expand_output(output, option)
    _refuse_around_inputs(path, inputs, option)
    _refuse_inside_artifacts(path, option)
    check_replaceable(path, kind=kind, artifact_in=artifact_in, option=option)
    _check_writable(path if os.path.ismount(path) else path.parent, option)
    return path


def check_replaceable(
    path: Path, *, kind: str | None = None, artifact_in: Lister | None = None, option: str = "--output"
) -> None:
    """Refuse what stands at ``path`` unless it is nothing, empty, or an artifact of ours of that kind.

    Raises:
        UserError: a file, a link, a folder of the user's, or an artifact with other files in it.
    """
    if path.is_symlink():
        raise UserError(
            f"{option} {path} is a symbolic link; name the folder that it points at, or another",
            code="output.symlink",
        )
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise UserError(
            f"{option} {path} is a file, expected a folder to make; choose another name",
            code="output.wrong_type",
        )
    try:
        names_here = os.listdir(path)
    except OSError as error:
        raise UserError(
            f"{option} {path} cannot be read ({error.strerror}); choose another name",
            code="output.unreadable",
        ) from None
    if all(name in _HARMLESS or in_progress(name) for name in names_here):
        return
    found = (artifact_in or artifact_by_manifest)(path)
    if found is None:
        raise UserError(
            f"{option} {path} is not empty and holds no artifact of ours (no {MANIFEST} that latentrec "
            "wrote); nothing in it was touched, choose another folder or empty it yourself",
            code="output.foreign_files",
        )
    found_kind, names = found
    if kind is not None and found_kind and found_kind != kind:
        raise UserError(
            f"{option} {path} holds a {found_kind}, and a {kind} is to be made; choose another folder",
            code="output.other_artifact",
        )
    foreign = sorted(
        name
        for name in relative_files(path)
        if name not in names and Path(name).name not in _HARMLESS and not in_progress(name)
    )
    if foreign:
        raise UserError(
            f"{option} {path} holds {foreign[0]!r}, which the {found_kind} there does not list; nothing was "
            "touched, move it away or choose another folder",
            code="output.foreign_files",
        )


def check_output_file(
    output: str | Path,
    is_ours: Callable[[Path], bool],
    *,
    inputs: Iterable[str | Path | None] = (),
    option: str = "--output",
) -> Path:
    """The same for an output that is one file: only an empty file or one that we wrote is replaced.

    Args:
        output: file to make.
        is_ours: whether a file is an earlier output of the same command.
        inputs: locations that the work reads.
        option: the flag, for messages.

    Raises:
        UserError: names the file, what stands there and the cure.
    """
    path = expand_output(output, option)
    if path.is_symlink():
        raise UserError(
            f"{option} {path} is a symbolic link; name the file that it points at, or another",
            code="output.symlink",
        )
    if path.is_dir():
        raise UserError(
            f"{option} {path} is a folder, expected a file to make; give a name inside it",
            code="output.wrong_type",
        )
    for place, text in _local_inputs(inputs):
        if place == _real(path):
            raise UserError(
                f"{option} {path} is the input {text}; choose another name", code="output.is_input"
            )
    _refuse_inside_artifacts(path, option)
    if os.path.lexists(path):
        try:
            ours = path.is_file() and (path.stat().st_size == 0 or is_ours(path))
        except OSError as error:
            raise UserError(
                f"{option} {path} cannot be read ({error.strerror})", code="output.unreadable"
            ) from None
        if not ours:
            raise UserError(
                f"{option} {path} is there already and was not made by this command; nothing was touched, "
                "choose another name or remove it yourself",
                code="output.foreign_files",
            )
    _check_writable(path.parent, option)
    return path


def artifact_by_manifest(path: Path) -> tuple[str, set[str]] | None:
    """Kind and file names of the artifact in a folder, by its manifest (or the list of a move begun)."""
    try:
        if (path / REPLACING).is_file():
            begun = json.loads((path / REPLACING).read_bytes())
            return str(begun["kind"]), {MANIFEST, REPLACING, *map(str, begun["names"])}
        manifest = parse_manifest((path / MANIFEST).read_bytes(), str(path / MANIFEST))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest.kind, {MANIFEST, *manifest.files}


def _refuse_inside_artifacts(path: Path, option: str) -> None:
    """Refuse an output inside another artifact, whose manifest would not list it.

    The folder of a generated sample is the exception: outputs may stand beside its files.

    Raises:
        UserError: ``path`` lies inside an artifact that is not a sample.
    """
    for parent in path.parents:
        found = artifact_by_manifest(parent) if (parent / MANIFEST).is_file() else None
        if found is not None and found[0] != "sample":
            raise UserError(
                f"{option} {path} lies inside the {found[0]} {parent}; choose a place beside it",
                code="output.bad_location",
            )


def _refuse_around_inputs(path: Path, inputs: Iterable[str | Path | None], option: str) -> None:
    real = _real(path)
    here = Path(os.path.realpath(os.curdir))
    if real == here or real in here.parents:
        raise UserError(
            f"{option} {path} is the working directory or a folder around it; name a folder of its own",
            code="output.bad_location",
        )
    for place, text in _local_inputs(inputs):
        if place == real:
            raise UserError(
                f"{option} {path} is the input {text}; choose another folder", code="output.is_input"
            )
        if real in place.parents:
            raise UserError(
                f"{option} {path} holds the input {text}; choose a folder beside it", code="output.is_input"
            )
        if place.is_dir() and place in real.parents:
            raise UserError(
                f"{option} {path} lies inside the input {text}; choose a folder beside it",
                code="output.is_input",
            )


def _local_inputs(inputs: Iterable[str | Path | None]) -> Iterator[tuple[Path, str]]:
    for entry in inputs:
        text = str(entry or "")
        if text and is_local(text):
            with contextlib.suppress(RuntimeError, OSError):
                folder = text if not any(sign in text for sign in "*?[") else text.rpartition("/")[0] or "."
                place = local_path(text) if os.path.lexists(local_path(text)) else local_path(folder)
                if os.path.lexists(place):
                    yield _real(place), text


def _check_writable(folder: Path, option: str) -> None:
    """Whether the nearest folder that is there can be written to; asked, not tried, so nothing is left."""
    standing = folder
    while not os.path.lexists(standing) and standing != standing.parent:
        standing = standing.parent
    if not standing.is_dir():
        raise UserError(
            f"{option}: {standing} is a file, expected a folder; choose another place",
            code="output.wrong_type",
        )
    if not os.access(standing, os.W_OK | os.X_OK, effective_ids=True):
        is_read_only = bool(os.statvfs(standing).f_flag & os.ST_RDONLY)
        reason = "read-only file system" if is_read_only else "permission denied"
        raise UserError(
            f"{option}: {standing} cannot be written ({reason}); choose another place",
            code="output.not_writable",
        )


def in_progress(name: str) -> bool:
    """Whether a name inside a folder belongs to the working folder of an attempt."""
    first = name.split("/")[0]
    return first.startswith(".") and WORKING in first


def is_folder(path: Path) -> bool:
    """Whether a path is a folder itself and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def relative_files(folder: Path) -> Iterator[str]:
    """Names of everything but folders below a folder, with slashes."""
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not is_folder(path))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
