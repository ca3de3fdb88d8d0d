"""Time and peak memory of a command in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_WRAPPER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6]))
"""


def run_measured(command: Sequence[str], cwd: Path) -> dict[str, float]:
    """Run ``python command…`` and measure it.

    A small process stands between: Linux hands the parent's peak memory down to what it starts, so a child
    of a large process could never show less than that.

    Returns:
        ``seconds`` (wall), ``cpu_seconds`` (user and system), ``peak_mb`` (resident, 10⁶ bytes).

    Raises:
        RuntimeError: the command did not end with 0.
    """
    arguments = [sys.executable, "-c", _WRAPPER, sys.executable, *command]
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        code, seconds, cpu, peak = json.loads(done.stdout)
        if code == 0:
            return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}
    raise RuntimeError(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
