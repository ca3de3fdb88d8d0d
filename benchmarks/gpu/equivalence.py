"""Part a: the tests that need a GPU (``pytest -m gpu``): the same equivalences as on a CPU, fp32 and bf16."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.context import Context

ROOT = Path(__file__).resolve().parents[2]


def run(context: Context) -> None:
    """Run them in a process of its own; a failure is a row of the table, its text is in the log."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu"]
    command += ["--confcutdir", "tests/gpu", "tests/gpu"]  # other folders' fixtures need other packages
    log = context.output / "equivalence.log"
    with log.open("w") as stream:
        code = subprocess.call(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT)
    text = log.read_text(encoding="utf-8")
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error|skipped)", text)}
    context.record("a equivalence", "pytest -m gpu", exit_code=code, **counts)
