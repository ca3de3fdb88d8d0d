"""Ctrl-C and SIGTERM end a local run within seconds, whatever the run is doing when the signal comes.

A signal raises ``KeyboardInterrupt`` in the main thread, and Python drops an exception that is raised in a
``__del__`` or in a callback: the run would go on. So the signal also starts a thread that ends the steps'
processes, and a flag keeps further steps from beginning. A second signal waits for nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import psutil

from latentrec.steps.status import EXIT_KEYBOARD

STOP_SECONDS = 10.0
"""For a step to save its checkpoint after SIGTERM."""
_KILLED_SECONDS = 5.0
"""For the kernel to end what was killed; a process that waits for a failed disk never ends."""


class StopRequest:
    """Whether a signal has asked this run to stop, and the end of its children once one has."""

    def __init__(self, seconds: float = STOP_SECONDS):
        """Nothing asked yet; ``seconds``: what the children get to end by themselves."""
        self.requested = False
        self._seconds = seconds
        self._ender: threading.Thread | None = None

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to SIGINT and SIGTERM; in a thread other than the main one nothing is installed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def wait(self) -> None:
        """Wait until every child process has ended."""
        self.end_children()
        assert self._ender is not None
        self._ender.join()

    def end_children(self) -> None:
        """Begin to end every process that this one has started: SIGTERM, then SIGKILL to what is left."""
        self.requested = True
        if self._ender is None:
            self._ender = threading.Thread(target=end_children, args=(self._seconds,), daemon=True)
            self._ender.start()

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        if self.requested:
            end_children(0)
            os._exit(EXIT_KEYBOARD)
        with suppress(OSError):
            os.write(
                sys.__stderr__.fileno() if sys.__stderr__ else 2,
                f"\n{signal.Signals(number).name}: stopping; a step gets {self._seconds:.0f} s to save its "
                "checkpoint (again: at once)\n".encode(),
            )
        self.end_children()
        raise KeyboardInterrupt


def end_children(seconds: float = STOP_SECONDS) -> None:
    """SIGTERM to all descendants, SIGKILL after ``seconds``; a step that begins meanwhile is ended too."""
    deadline = time.monotonic() + seconds
    reported: set[psutil.Process] = set()
    while children := psutil.Process().children(recursive=True):
        late = time.monotonic() >= deadline
        for child in children:
            with suppress(psutil.NoSuchProcess):
                if late:
                    child.kill()
                elif child not in reported:
                    reported.add(child)
                    child.terminate()
        alive = psutil.wait_procs(children, timeout=0.1)[1]
        if late and (
            all(_is_dead(child) for child in alive) or time.monotonic() > deadline + _KILLED_SECONDS
        ):
            return


def _is_dead(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
