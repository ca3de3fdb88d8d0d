"""What lies under a checkpoint root, and which of it no index names any more.

A save that was killed, or an attempt that was replaced while it uploaded, leaves files that can never become
a checkpoint. They are safe to remove when their fencing token is older than the index's (that attempt can
publish nothing more), or when they are older than any save takes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from latentrec.core import UserError
from latentrec.storage.checkpoint_index import CHECKPOINT_ID, INDEX, parse_index
from latentrec.storage.local import local_path
from latentrec.storage.types import ObjectInfo, PreconditionFailed
from latentrec.storage.uri import is_local, join, store_for


@dataclass
class Work:
    """The checkpoints of one piece of work, as found.

    Attributes:
        uri: its folder.
        step: name of the step; empty when there is no index.
        token: attempts so far.
        checkpoints: entries of the index, oldest first.
        best: id of the best, or ``None``.
        updated: UTC seconds of the last write of its index.
        referenced: files that the index names.
        unreferenced: all others.
        index: the index object, or ``None``.
    """

    uri: str
    step: str = ""
    token: int = 0
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    best: str | None = None
    updated: float = 0.0
    referenced: list[ObjectInfo] = field(default_factory=list)
    unreferenced: list[ObjectInfo] = field(default_factory=list)
    index: ObjectInfo | None = None

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(info.size for info in [*self.referenced, *self.unreferenced])


@dataclass(frozen=True)
class GarbageReport:
    """One object that may go, and why."""

    info: ObjectInfo
    reason: str


def scan(root: str) -> list[Work]:
    """Every piece of work under a checkpoint root, in order of name.

    Raises:
        UserError: the root does not exist, or an index there is none.
    """
    store = store_for(root)
    base = _base(root)
    works: dict[str, Work] = {}
    objects = [*store.list(base + "/"), *store.leftovers(base + "/")]
    for info in objects:
        name, _, rest = info.uri.removeprefix(base + "/").partition("/")
        if rest == INDEX:
            works[name] = _read_work(join(base, name), info)
    for info in objects:
        name, _, rest = info.uri.removeprefix(base + "/").partition("/")
        if (
            not rest
            or rest == INDEX
            or not (name in works or CHECKPOINT_ID.fullmatch(rest.partition("/")[0]))
        ):
            continue  # not written by a checkpoint store: none of our business
        work = works.setdefault(name, Work(uri=join(base, name)))
        named = {f"{entry['id']}/{file}" for entry in work.checkpoints for file in entry["files"]}
        (work.referenced if rest in named else work.unreferenced).append(info)
    if not works and is_local(root) and not local_path(root).is_dir():
        raise UserError(
            f"{root}: no such folder; give the --checkpoint-root of the trainers", code="storage.not_found"
        )
    return [works[name] for name in sorted(works)]


def find_checkpoint_garbage(
    works: Iterable[Work], *, older_than_s: float, unused_for_s: float | None = None
) -> list[GarbageReport]:
    """The objects that may go.

    Args:
        works: from :func:`scan`.
        older_than_s: an unreferenced file of the running attempt is kept for so long: it may be in a save.
        unused_for_s: all of a work goes whose index was not written for so long; ``None`` keeps every work.
    """
    now = time.time()
    found = []
    for work in works:
        if work.index is not None and unused_for_s is not None and now - work.updated > unused_for_s:
            days = (now - work.updated) / 86_400
            everything = [work.index, *work.referenced, *work.unreferenced]
            found += [GarbageReport(info, f"not used for {days:.1f} days") for info in everything]
            continue
        for info in work.unreferenced:
            token = CHECKPOINT_ID.fullmatch(info.uri.removeprefix(work.uri + "/").partition("/")[0])
            if token and int(token[1]) < work.token:
                found.append(
                    GarbageReport(info, f"its attempt (token {token[1]}) was replaced (now {work.token})")
                )
            elif now - info.updated > older_than_s:
                found.append(
                    GarbageReport(info, f"named by no index for {(now - info.updated) / 3600:.1f} hours")
                )
    return found


def remove_checkpoint_garbage(garbage: Iterable[GarbageReport]) -> int:
    """Remove the objects; returns the bytes freed. A work that was resumed meanwhile is kept."""
    freed = 0
    kept: set[str] = set()
    for piece in sorted(garbage, key=lambda piece: not piece.info.uri.endswith(f"/{INDEX}")):
        uri = piece.info.uri
        if any(uri.startswith(folder) for folder in kept):
            continue
        try:
            store_for(uri).delete(uri, if_version=piece.info.version)
        except PreconditionFailed:
            if uri.endswith(f"/{INDEX}"):
                kept.add(uri.removesuffix(INDEX))
            continue
        freed += piece.info.size
        if is_local(uri):
            _remove_empty_folders(uri)
    return freed


def _read_work(uri: str, index: ObjectInfo) -> Work:
    body = parse_index(store_for(uri).read_bytes(index.uri), index.uri, f"remove {uri} by hand")
    return Work(
        uri=uri,
        step=body.work["step"],
        token=body.token,
        checkpoints=body.checkpoints,
        best=body.best,
        updated=index.updated,
        index=index,
    )


def _remove_empty_folders(uri: str) -> None:
    """Take away the folders of a checkpoint that is gone; one that is not empty stays."""
    folder = local_path(uri).parent
    while CHECKPOINT_ID.fullmatch(folder.name) or any(
        CHECKPOINT_ID.fullmatch(parent.name) for parent in folder.parents
    ):
        if any(folder.iterdir()):
            return
        shutil.rmtree(folder)
        folder = folder.parent


def _base(root: str) -> str:
    return str(local_path(root)) if is_local(root) else str(root).rstrip("/")
