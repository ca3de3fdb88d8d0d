"""What every container of a run asserts of itself before it starts its step, and how the tests hear of it."""

from __future__ import annotations

from collections.abc import Sequence

PROBE = """
import errno, json, os, shutil, subprocess, sys

import kfp


def writable(folder):
    try:
        with open(os.path.join(folder, ".probe"), "x"):
            pass
        os.remove(os.path.join(folder, ".probe"))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "writable"


with open("/proc/self/mountinfo") as stream:
    lines = [line.split(" - ") for line in stream.read().splitlines()]
kinds = {left.split()[4]: right.split()[0] for left, right in lines}
options = {left.split()[4]: left.split()[5].split(",") for left, right in lines}
with open("/proc/self/status") as stream:
    status = dict(line.split(":", 1) for line in stream)
found = {
    "uid": os.getuid(),
    "gid": os.getgid(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapPrm"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "root": "read-only" if "ro" in options["/"] else "writable",
    "write": {folder: writable(folder) for folder in ("/venv", "/app", "/tmp")},
    "tmp": kinds.get("/tmp"),
    "python": shutil.which("python3"),
    "builders": [name for name in ("gcc", "cc", "g++", "make", "ld", "git", "curl") if shutil.which(name)],
    "pip": os.path.isdir(os.path.join(sys.prefix, "lib/python3.11/site-packages/pip")),
    "kfp": kfp.__version__,
    "git_sha": os.environ.get("LATENTREC_GIT_SHA", ""),
}
assert found["uid"] != 0 and found["gid"] != 0, found
assert found["capabilities"] == 0 and found["no_new_privileges"] == "1", found
assert found["root"] == "read-only", found
assert found["write"]["/tmp"] == "writable", found
assert {found["write"]["/venv"], found["write"]["/app"]} <= {"EROFS", "EACCES"}, found
assert found["tmp"] == "tmpfs", found
assert found["python"].startswith("/venv/"), found
assert not found["builders"] and not found["pip"], found
print("INSIDE " + json.dumps(found), flush=True)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Python: looks around, asserts, tells in one line, and becomes the command that it was given."""


def probed(command: Sequence[str]) -> list[str]:
    """A container's command behind the probe."""
    return ["python3", "-c", PROBE, *command]
