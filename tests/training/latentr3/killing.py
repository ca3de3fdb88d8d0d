"""A training command in a process of its own, killed without warning, and proof that it was resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentrec.training.sequential import training_loop

PATIENCE_S = 120


def kill_after_first_checkpoint(command: str, flags: Mapping[str, Any], checkpoints: Path) -> None:
    """Start ``latentrec COMMAND --FLAG=VALUE …`` and send SIGKILL as soon as the index names a checkpoint.

    Raises:
        AssertionError: it ended by itself, or no checkpoint came in time.
    """
    words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    child = subprocess.Popen(
        [sys.executable, "-m", "latentrec", command, *words, f"--checkpoint-root={checkpoints}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + PATIENCE_S
    while not any(json.loads(index.read_text())["checkpoints"] for index in checkpoints.glob("*/index.json")):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def count_steps(monkeypatch: Any) -> list[int]:
    """Let every optimizer step of the sequential loop leave an entry: a resumed run must take fewer."""
    taken: list[int] = []
    real = training_loop._step

    def counted(*arguments: Any) -> None:
        taken.append(1)
        real(*arguments)

    monkeypatch.setattr(training_loop, "_step", counted)
    return taken
