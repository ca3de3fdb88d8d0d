"""The create-once lock under which an alias moves: MLflow's aliases have no compare-and-set of their own.

The lock is an object that records its holder, and which version the holder expects to replace by which. It
is written create-once and refreshed while it is held. A waiting process breaks the lock of a dead process by
compare-and-swap: at once where the holder ran on this machine and its process is gone, otherwise when the
lock was not refreshed for :data:`STALE_AFTER_S`. A holder whose lock was broken finds out before it moves
anything (:meth:`Lock.check`).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.core.settings import LOCK_ROOT_VARIABLE, RUN_ID_VARIABLE, STATUS_ROOT_VARIABLE
from latentrec.storage import ABSENT, PreconditionFailed, join, store_for
from latentrec.tracking.run_context import embedded_root

STALE_AFTER_S = 60.0
REFRESH_S = 10.0
_MISSED_S = 2.5 * REFRESH_S
"""A living holder refreshes its lock at least once within so long."""
_POLL_S = 0.5


class LockLost(RuntimeError):
    """Another process has taken the lock over; nothing was moved."""


@dataclass
class Lock:
    """A lock that is held.

    Attributes:
        uri: where it stands.
        version: version of the object that is ours.
        content: what it says.
    """

    uri: str
    version: str
    content: dict[str, Any] = field(default_factory=dict)
    _mutex: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def check(self) -> None:
        """Raise :class:`LockLost` unless the lock is still ours."""
        with self._mutex:
            info = store_for(self.uri).stat(self.uri)
            if info is None or info.version != self.version:
                raise LockLost(f"{self.uri}: another process has taken the lock over; try again")

    def record(self, *, expects: str | None, version: str) -> None:
        """Write down which version the holder expects to replace, and by which.

        Raises:
            LockLost: the lock is no longer ours.
        """
        self.content |= {"expects": expects, "version": version}
        self.refresh()

    def refresh(self) -> None:
        """Write the lock again, so that waiting processes see a living holder.

        Raises:
            LockLost: the lock is no longer ours.
        """
        with self._mutex:
            try:
                info = store_for(self.uri).write_bytes(self.uri, _body(self.content), if_version=self.version)
            except PreconditionFailed:
                raise LockLost(f"{self.uri}: another process has taken the lock over; try again") from None
            self.version = info.version


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
        "that every pipeline of this registry shares, for example gs://BUCKET/locks",
        code="registry.no_lock_location",
    )


@contextmanager
def promotion_lock(
    root: str,
    name: str,
    *,
    expects: str | None = None,
    version: str | None = None,
    wait_seconds: float = 2 * STALE_AFTER_S,
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
    content = {
        "expects": expects,
        "version": version,
        "holder": process_identity(),
        "run_id": os.environ.get(RUN_ID_VARIABLE),
        "token": uuid.uuid4().hex,
    }
    held = _acquire(uri, content, name, wait_seconds)
    done = threading.Event()
    threading.Thread(target=_keep_fresh, args=(held, done), name="promotion-lock", daemon=True).start()
    try:
        yield held
    finally:
        done.set()
        with held._mutex, suppress(PreconditionFailed):
            store_for(uri).delete(uri, if_version=held.version)


def process_identity() -> dict[str, Any]:
    """Identifies this process, so that another one on the same machine can check whether it still runs."""
    pid = os.getpid()
    return {"machine": _machine(), "host": socket.gethostname(), "pid": pid, "started": _state(pid)[1]}


def is_known_dead(holder: Any) -> bool:
    """Whether a lock's holder certainly runs no more: a process of this machine that is gone."""
    if not isinstance(holder, Mapping) or holder.get("machine") != _machine():
        return False
    pid = holder.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it runs, under another user
    state, started = _state(pid)
    return state == "Z" or (holder.get("started") is not None and started != holder["started"])


def _acquire(uri: str, content: dict[str, Any], name: str, wait_seconds: float) -> Lock:
    store = store_for(uri)
    deadline = time.monotonic() + wait_seconds
    seen_version, seen_since = "", 0.0
    while True:
        try:
            return Lock(uri, store.write_bytes(uri, _body(content), if_version=ABSENT).version, content)
        except PreconditionFailed:
            pass
        info = store.stat(uri)
        if info is None:
            continue
        if info.version != seen_version:
            seen_version, seen_since = info.version, time.monotonic()
        watched = time.monotonic() - seen_since
        # This machine's clock and the store's may be apart: a holder that is alive is seen to refresh.
        is_overdue = time.time() - info.updated > STALE_AFTER_S and watched > _MISSED_S
        holder = _holder(uri)
        if watched > STALE_AFTER_S or is_overdue or is_known_dead(holder):
            try:
                found = store.write_bytes(uri, _body(content), if_version=info.version)
            except PreconditionFailed:
                continue
            return Lock(uri, found.version, content)
        if time.monotonic() > deadline:
            who = f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another process"
            raise UserError(
                f"{uri}: {who} has been moving aliases of {name} for over {wait_seconds:.0f} s; try again "
                f"later (the lock of a process that died is broken after {STALE_AFTER_S:.0f} s)",
                code="registry.locked",
            )
        time.sleep(_POLL_S)


def _keep_fresh(lock: Lock, done: threading.Event) -> None:
    while not done.wait(REFRESH_S):
        try:
            lock.refresh()
        except LockLost:
            return
        except Exception:  # the store is away for a moment: the next round tries again
            continue


def _holder(uri: str) -> Mapping[str, Any]:
    try:
        holder = json.loads(store_for(uri).read_bytes(uri)).get("holder")
    except (OSError, ValueError, AttributeError):
        return {}
    return holder if isinstance(holder, Mapping) else {}


def _body(content: Mapping[str, Any]) -> bytes:
    return json.dumps({**content, "refreshed": time.time()}, sort_keys=True).encode()


def _machine() -> str:
    """This machine's boot and process namespace: within it a process number means one process."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _state(pid: int) -> tuple[str, str | None]:
    """State letter and start time (clock ticks) of a process; ``None`` where the system does not say."""
    with suppress(OSError, IndexError):
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
        return fields[0], fields[19]
    return "", None
