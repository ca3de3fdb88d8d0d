"""How a process waits and returns memory to the system."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's ``mallopt``."""
LARGE_BLOCK = 2 << 20


def wait_passively() -> None:
    """OpenMP threads that have nothing to do sleep, unless the environment says otherwise.

    Threads that spin take the cores from other processes: measured, two of them beside another
    process are five times slower than one. Has to be called before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def return_freed_memory() -> bool:
    """Let glibc map blocks of 2 MB and more apart, so that they go back to the system when they are freed.

    Weights, gradients and optimizer state then stand outside the heap that activations come and go in (the
    matrices of a model of 135 million parameters take 3.5 MB each). Batches whose shapes change from step to step otherwise leave holes that are never given back: a training
    on a CPU grew from 8 to 16 GB within 70 steps. ``MALLOC_MMAP_THRESHOLD_`` and ``MALLOC_TRIM_THRESHOLD_``
    of the environment win. Returns whether anything was set; elsewhere than on glibc there is no need.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)) and bool(mallopt(M_TRIM_THRESHOLD, LARGE_BLOCK))
