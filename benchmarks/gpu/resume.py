"""Part d: a training that is killed (SIGKILL) and started again ends where one that was not would."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.gpu.context import Context
from latentrec.data import DataPrepConfig, generate_sample, prepare

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    *("--backbone", "micro", "--num-train-epochs", "1", "--batch-size", "16", "--max-train-samples", "320"),
    *("--validation-samples", "32", "--ranking-samples", "0", "--evals-per-epoch", "1", "--save-steps", "4"),
)


def run(context: Context) -> None:
    """Whole, killed and resumed, compared by their weights."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        reviews, metadata = generate_sample(folder / "reviews")
        prepare(DataPrepConfig(reviews=(str(reviews),), metadata=(str(metadata),)), folder / "dataset")
        whole, killed = (start(folder, name) for name in ("whole", "killed"))
        at = kill_after_a_checkpoint(killed, folder / "checkpoints-killed")
        if whole.wait() or start(folder, "killed").wait():
            raise RuntimeError(
                (folder / "killed.log").read_text()[-2000:] + (folder / "whole.log").read_text()[-2000:]
            )
        gap = largest_difference(folder / "whole", folder / "killed")
    context.record(
        "d killed and resumed", "sft, micro", killed_with_checkpoints=at, largest_weight_difference=gap
    )


def start(folder: Path, name: str) -> subprocess.Popen:
    """``latentrec sft`` with checkpoints, in a process of its own."""
    command = [sys.executable, "-m", "latentrec", "sft", *FLAGS, "--dataset", str(folder / "dataset")]
    command += ["--output", str(folder / name), "--checkpoint-root", str(folder / f"checkpoints-{name}")]
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )


def kill_after_a_checkpoint(process: subprocess.Popen, root: Path) -> int:
    """SIGKILL once a second checkpoint is complete; returns how many were there."""
    limit = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < limit:
        found = len(list(root.rglob("optimizer*")))
        if found >= 2:
            process.kill()
            process.wait()
            return found
        time.sleep(0.02)
    raise RuntimeError(f"the training ended (code {process.poll()}) before it could be killed")


def largest_difference(left: Path, right: Path) -> float:
    """Between the weights of two model directories."""

    def weights(directory: Path) -> dict[str, Any]:
        files = sorted(directory.rglob("*.safetensors"))
        return {f"{f.name}:{key}": value for f in files for key, value in load_file(f).items()}

    one, other = weights(left), weights(right)
    assert one.keys() == other.keys()
    return max(
        float((one[key].float() - other[key].float()).abs().max())
        for key in one
        if isinstance(one[key], torch.Tensor)
    )
