"""The create-once lock under which an alias moves: MLflow's aliases have no compare-and-set of their own.

The lock is an object that records which version the holder expects to replace and by which. It is written
create-once; a holder that died is taken over by compare-and-swap after :data:`STALE_AFTER_S`, and one that
was taken over finds out before it moves anything (:meth:`Lock.check`).
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from latentrec.core import UserError
from latentrec.core.settings import LOCK_ROOT_VARIABLE, RUN_ID_VARIABLE, STATUS_ROOT_VARIABLE
from latentrec.storage import ABSENT, PreconditionFailed, join, store_for
from latentrec.tracking.run_context import embedded_root

STALE_AFTER_S = 900.0
_POLL_S = 0.5


class LockLost(RuntimeError):
    """Another process has taken the lock over; nothing was moved."""


@dataclass
class Lock:
    """A lock that is held: where it stands and which version of the object is ours."""

    uri: str
    version: str

    def check(self) -> None:
        """Raise :class:`LockLost` unless the lock is still ours."""
        info = store_for(self.uri).stat(self.uri)
        if info is None or info.version != self.version:
            raise LockLost(f"{self.uri}: another process has taken the lock over; try again")


def lock_root(tracking_uri: str) -> str:
    """Where locks of this registry stand: ``LATENTREC_LOCK_ROOT``, else beside the embedded database.

    Raises:
        UserError: a tracking server is used and no place for its locks is given.
    """
    root = os.environ.get(LOCK_ROOT_VARIABLE)
    if root:
        return root
    embedded = embedded_root(tracking_uri)
    if embedded:
        return join(embedded, "locks")
    status_root = os.environ.get(STATUS_ROOT_VARIABLE)
    if status_root:
        return join(status_root, "registry-locks")
    raise UserError(
        f"{LOCK_ROOT_VARIABLE} is not set: aliases of a shared registry move under a lock; give a location "
        "that every pipeline of this registry shares, for example gs://BUCKET/locks"
    )


@contextmanager
def promotion_lock(
    root: str, name: str, *, expects: str | None, version: str, wait_seconds: float = 60.0
) -> Iterator[Lock]:
    """Hold the lock of one registered model.

    Args:
        root: folder of locks, shared by all who move aliases of this registry.
        name: registered model.
        expects: version that the alias must still point at; ``None``: there is no such alias yet.
        version: version that is to take its place.
        wait_seconds: how long to wait for another holder.

    Raises:
        UserError: another process holds it for longer than that.
    """
    uri = join(root, name, "promotion.lock")
    store = store_for(uri)
    content = {
        "expects": expects,
        "version": version,
        "holder": f"{socket.gethostname()}:{os.getpid()}",
        "run_id": os.environ.get(RUN_ID_VARIABLE),
        "token": uuid.uuid4().hex,
    }
    deadline = time.monotonic() + wait_seconds
    while True:
        body = json.dumps({**content, "since": time.time()}, sort_keys=True).encode()
        try:
            held = Lock(uri, store.write_bytes(uri, body, if_version=ABSENT).version)
            break
        except PreconditionFailed:
            pass
        info = store.stat(uri)
        if info is not None and time.time() - info.updated > STALE_AFTER_S:
            try:
                held = Lock(uri, store.write_bytes(uri, body, if_version=info.version).version)
                break
            except PreconditionFailed:
                continue
        if time.monotonic() > deadline:
            raise UserError(
                f"{uri}: another process has been moving aliases of {name} for over {wait_seconds:.0f} s; "
                f"try again later (a dead process's lock is taken over after {STALE_AFTER_S / 60:.0f} min)"
            )
        time.sleep(_POLL_S)
    try:
        yield held
    finally:
        with suppress(PreconditionFailed):
            store.delete(uri, if_version=held.version)
