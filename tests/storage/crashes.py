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
FAILED = "a request failed"


def killed_everywhere(
    root: pathlib.Path, prepare: Callable[[], None], action: Callable[[], None]
) -> Iterator[int]:
    """For each boundary of ``action``: ``prepare()``, run it in a child that dies there, yield the number.

    Only file-system changes below ``root`` count: what the interpreter does elsewhere (a finalizer that
    removes a temporary file) comes and goes, and would shift the numbers. So would a request that a busy
    machine let fail and the store repeated: a child's trace of boundaries has to continue the trace of the
    child before it, and one in which a request failed, or that differs, is run again. Ends when the action
    comes through past the last known boundary; that it had at least three is asserted.
    """
    trace: list[str] = []
    disturbed: list[list[str]] = []
    while True:
        at = len(trace)
        prepare()
        passed, died = _passed(root, action, at)
        if FAILED in passed or passed[:at] != trace:
            disturbed.append(passed)
            assert len(disturbed) <= 20, f"boundaries come and go: {trace} and {disturbed[-3:]}"
            if FAILED not in passed and disturbed.count(passed) >= 3:  # the trace before was the odd one
                same = [old == new for old, new in zip(trace, passed, strict=False)]
                trace = trace[: same.index(False) if False in same else len(passed)]
            continue
        if not died:
            break
        trace = passed
        yield at
    assert len(trace) >= 3


def _passed(root: pathlib.Path, action: Callable[[], None], at: int) -> tuple[list[str], bool]:
    """The boundaries that a child came to, the deadly one included, and whether it died there."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _arm(str(root), at, writer)
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        passed = stream.read().splitlines()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return passed, True
    assert os.WEXITSTATUS(status) == 0
    return passed, False


def _arm(root: str, at: int, trace: int) -> None:
    passed = 0

    def boundary(name: str) -> None:
        nonlocal passed
        os.write(trace, f"{name}\n".encode())
        if passed == at:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def audit(event: str, arguments: tuple) -> None:
        if event == "open":
            flags = arguments[2]
            changes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            changes = event in CHANGES
        if changes and _place(arguments).startswith(root):
            boundary(event)

    def fsync(descriptor: int) -> None:
        boundary("fsync")
        real_fsync(descriptor)

    def write_bytes(path: pathlib.Path, data: bytes) -> int:
        with open(path, "wb", buffering=0) as stream:
            stream.write(data[: len(data) // 2])
            boundary("write")
            return stream.write(data[len(data) // 2 :])

    def copyfile(source, target, **_) -> None:
        write_bytes(pathlib.Path(target), pathlib.Path(source).read_bytes())

    def send(adapter, request, **options) -> requests.Response:
        boundary(f"{request.method} begins")
        try:
            response = real_send(adapter, request, **options)
        except requests.RequestException:
            os.write(trace, f"{FAILED}\n".encode())
            raise
        if response.status_code >= 500:
            os.write(trace, f"{FAILED}\n".encode())
        boundary(f"{request.method} {response.status_code}")
        return response

    real_fsync, os.fsync = os.fsync, fsync
    real_send, requests.adapters.HTTPAdapter.send = requests.adapters.HTTPAdapter.send, send
    pathlib.Path.write_bytes = write_bytes
    pathlib.Path.write_text = lambda path, text, **_: write_bytes(path, text.encode())
    shutil.copyfile = copyfile
    sys.addaudithook(audit)


def _place(arguments: tuple) -> str:
    """The path that an audit event is about; some give a name and the descriptor of its folder."""
    path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
    if path and not os.path.isabs(path) and isinstance(arguments[-1], int) and arguments[-1] >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{arguments[-1]}"), path)
    return path
