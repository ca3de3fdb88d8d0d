"""Part g: settings of stage 1 with a pretrained backbone, tried side by side and compared on validation.

Each trial is a ``latentrec sft`` of its own on Office; what decides is NDCG@10 of the real decoder on
validation samples. The test split is not touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.context import Context

ROOT = Path(__file__).resolve().parents[2]
COMMON = (
    *(
        "--packing",
        "exact",
        "--evals-per-epoch",
        "1",
        "--patience",
        "0",
        "--metric-for-best-model",
        "ndcg_at_10",
    ),
    *("--validation-samples", "400", "--ranking-samples", "400", "--save-steps", "100000"),
    *("--max-title-tokens", "256", "--max-prompt-tokens", "1024", "--logging-steps", "40"),
)
TRIALS = {
    "N=0, lr 1e-4": ("--reasoning-tokens", "0", "--learning-rate", "1e-4"),
    "N=0, lr 3e-4": ("--reasoning-tokens", "0", "--learning-rate", "3e-4"),
    "N=1, lr 1e-4": ("--reasoning-tokens", "1", "--learning-rate", "1e-4"),
    "N=1, lr 3e-4": ("--reasoning-tokens", "1", "--learning-rate", "3e-4"),
    "N=0, lr 2e-4, catalogue": (
        *("--reasoning-tokens", "0", "--learning-rate", "2e-4"),
        *("--likelihood", "catalogue"),
    ),
    "N=1, lr 1e-3, LoRA 16": (
        *("--reasoning-tokens", "1", "--learning-rate", "1e-3"),
        *("--train-backbone", "lora"),
    ),
}


def run(context: Context) -> None:
    """Start all trials, wait, record what each evaluation says."""
    dataset = context.datasets / "office" if context.datasets is not None else None
    if dataset is None or not dataset.is_dir():
        raise FileNotFoundError("give --datasets with a prepared 'office'")
    backbone = context.model or "micro"
    size: tuple[str, ...] = ("--num-train-epochs", "3", "--batch-size", "64", "--bf16")
    if context.toy:
        size = ("--num-train-epochs", "1", "--batch-size", "64", "--max-train-samples", "200")
    trials = dict(list(TRIALS.items())[:1]) if context.toy else TRIALS
    running = {}
    for name, flags in trials.items():
        output = context.work / "grid" / name.replace(" ", "").replace(",", "-").replace("=", "")
        command = [
            sys.executable,
            "-m",
            "latentrec",
            "sft",
            "--backbone",
            backbone,
            *COMMON,
            *size,
            *flags,
        ]
        command += ["--dataset", str(dataset), "--output", str(output)]
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.with_suffix(".log").open("w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)
        running[process] = (name, output, time.monotonic())
    while running and time.monotonic() < context.deadline - 5:
        for process, (name, output, begun) in list(running.items()):
            if process.poll() is not None:
                del running[process]
                record(context, name, output, time.monotonic() - begun, process.returncode)
        time.sleep(0.2)
    for process, (name, _, begun) in running.items():
        process.kill()
        process.wait()
        context.record("g trials on validation", name, state="cut off", seconds=time.monotonic() - begun)


def record(context: Context, name: str, output: Path, seconds: float, code: int) -> None:
    """Every evaluation on validation, and the best."""
    if code:
        tail = output.with_suffix(".log").read_text(encoding="utf-8").splitlines()[-3:]
        context.record("g trials on validation", name, state=f"failed ({code})", note=" | ".join(tail)[-400:])
        return
    evaluations = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["evaluations"]
    shown = [" ".join(f"{key}={value:.4g}" for key, value in one.items()) for one in evaluations]
    best = max(evaluations, key=lambda one: one.get("ndcg_at_10", 0.0))
    context.record(
        "g trials on validation",
        name,
        state="done",
        seconds=seconds,
        ndcg_at_10=best.get("ndcg_at_10"),
        hr_at_10=best.get("hr_at_10"),
        loss=best.get("loss"),
        evaluations="; ".join(shown),
    )
