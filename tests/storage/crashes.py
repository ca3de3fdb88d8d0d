"""Kill a forked process at every write boundary of an action: the points are enumerated, not guessed.

Boundaries are: before each file-system change that Python reports (audit events for open-for-writing,
rename, remove, mkdir, utime…), before each fsync, in the middle of each file written or copied, and before
and after each HTTP request.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator

import requests

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.chmod", "os.truncate", "os.link"}


def killed_everywhere(prepare: Callable[[], None], action: Callable[[], None]) -> Iterator[int]:
    """For each boundary of ``action``: ``prepare()``, run it in a child that dies there, yield the number.

    Ends when the action comes through; that it had at least three boundaries is asserted.
    """
    at = 0
    while True:
        prepare()
        if not _dies(action, at):
            break
        yield at
        at += 1
    assert at >= 3


def _dies(action: Callable[[], None], at: int) -> bool:
    child = os.fork()
    if child == 0:
        try:
            _arm(at)
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def _arm(at: int) -> None:
    passed = 0

    def boundary() -> None:
        nonlocal passed
        if passed == at:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def audit(event: str, arguments: tuple) -> None:
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if event in CHANGES or (writes and "/dev/" not in str(arguments[0])):
            boundary()

    def fsync(descriptor: int) -> None:
        boundary()
        real_fsync(descriptor)

    def write_bytes(path: pathlib.Path, data: bytes) -> int:
        with open(path, "wb", buffering=0) as stream:
            stream.write(data[: len(data) // 2])
            boundary()
            return stream.write(data[len(data) // 2 :])

    def copyfile(source, target, **_) -> None:
        write_bytes(pathlib.Path(target), pathlib.Path(source).read_bytes())

    def send(adapter, request, **options) -> requests.Response:
        boundary()
        response = real_send(adapter, request, **options)
        boundary()
        return response

    real_fsync, os.fsync = os.fsync, fsync
    real_send, requests.adapters.HTTPAdapter.send = requests.adapters.HTTPAdapter.send, send
    pathlib.Path.write_bytes = write_bytes
    pathlib.Path.write_text = lambda path, text, **_: write_bytes(path, text.encode())
    shutil.copyfile = copyfile
    sys.addaudithook(audit)
