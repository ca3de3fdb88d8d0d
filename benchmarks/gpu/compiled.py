"""Part k: the SFT step of part b with compiled layers; apart, for compiling may outlast measuring."""

from __future__ import annotations

from benchmarks.gpu.context import Context
from benchmarks.gpu.training import run_compiled


def run(context: Context) -> None:
    """Measure each shape."""
    run_compiled(context)
