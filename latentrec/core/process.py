"""How a process waits and returns memory to the system."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's ``mallopt``."""
LARGE_BLOCK = 4 << 20
MUCH_FREED = 512 << 20
"""Free bytes in the heap that are worth the time it takes to give them back, and to have them again."""
LOADING_FREED = 32 << 20
"""The same once a model is loaded: nothing has to be fast then."""
PRIMITIVES_KEPT = 64


class _HeapFigures(ctypes.Structure):
    """glibc's ``struct mallinfo2``; ``fordblks``: bytes of free blocks."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def wait_passively() -> None:
    """OpenMP threads that have nothing to do sleep, unless the environment says otherwise.

    Threads that spin take the cores from other processes: measured, two of them beside another
    process are five times slower than one. Has to be called before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def keep_few_primitives() -> None:
    """Let oneDNN keep the code of 64 operations in place of 1,024, unless the environment says otherwise.

    It makes code for every shape, and rows without padding have another shape in every step: measured on
    SmolLM2-135M in bf16, memory grew by 48 MB a step, and by 20 with this, at the same speed. Has to be
    called before torch is imported.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRIMITIVES_KEPT))


def trim_heap(least: int = MUCH_FREED) -> bool:
    """Give free pages of the heap back to the system where they are many; whether there were.

    glibc does so by itself at the heap's end only. Between two steps of a large model on a CPU gigabytes of
    activations are free there, in holes. Does nothing on other systems, and for small models.

    Args:
        least: free bytes that count as many.
    """
    glibc = _glibc()
    if glibc is None or not hasattr(glibc, "mallinfo2"):
        return False
    glibc.mallinfo2.restype = _HeapFigures
    return bool(glibc.mallinfo2().fordblks >= least and glibc.malloc_trim(ctypes.c_size_t(0)))


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return library if hasattr(library, "mallopt") else None


def return_freed_memory() -> bool:
    """Let glibc map blocks of 4 MB and more apart, so that they go back to the system when they are freed.

    Batches whose shapes change from step to step otherwise leave holes that are never given back: a training
    on a CPU grew from 8 to 16 GB within 70 steps. ``MALLOC_MMAP_THRESHOLD_`` and ``MALLOC_TRIM_THRESHOLD_``
    of the environment win. Returns whether anything was set; elsewhere than on glibc there is no need.
    """
    glibc = _glibc()
    if glibc is None or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    return bool(glibc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)) and bool(
        glibc.mallopt(M_TRIM_THRESHOLD, LARGE_BLOCK)
    )
