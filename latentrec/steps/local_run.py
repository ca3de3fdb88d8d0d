"""The process behind a run on this machine (`make run`), known by its steps.

A pod is ended by its cluster. Here a step is a child of the run's process, and where that is killed without
a chance to say so (SIGKILL, out of memory, a closed laptop), nothing would end the step. So the run passes
its identity to its steps; a step whose run is gone stops itself as for SIGTERM, with its checkpoint saved;
and the next run ends in MLflow what was left open.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path

from latentrec.core.settings import LOCAL_RUN_VARIABLE

LOCAL = "local:"
_POLL_S = 1.0
_GRACE_S = 20.0
"""For a step to save its checkpoint, before it is killed."""
_logger = logging.getLogger(__name__)
_watching: set[int] = set()


def local_identity(pid: int | None = None) -> str:
    """``local:HOST:PID:START`` of this process, or of another one of this machine."""
    pid = pid or os.getpid()
    return f"{LOCAL}{socket.gethostname()}:{pid}:{_start_of(pid)}"


def is_over(identity: str) -> bool:
    """Whether a run's process has ended; false for another machine's, and for a malformed identity."""
    host, _, rest = identity.removeprefix(LOCAL).rpartition(":")[0].rpartition(":")
    if not identity.startswith(LOCAL) or host != socket.gethostname() or not rest.isdecimal():
        return False
    return local_identity(int(rest)) != identity


def end_with_run() -> None:
    """Watch the run's process from a thread; once it is gone, SIGTERM to this one, and SIGKILL 20 s later."""
    run = os.environ.get(LOCAL_RUN_VARIABLE, "")
    if not run.startswith(LOCAL) or os.getpid() in _watching:
        return
    _watching.add(os.getpid())
    threading.Thread(target=_watch, args=(run,), name="local-run", daemon=True).start()


def _watch(run: str) -> None:
    while not is_over(run):
        time.sleep(_POLL_S)
    _logger.warning("the run that began this step is gone; stopping")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _start_of(pid: int) -> str:
    """Start time of a process, since a later one may have the same id; empty if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        words = text.rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        return "" if words[0] in "ZX" else f"{boot}-{words[19]}"
    except OSError:
        if Path("/proc/self").exists():
            return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"
