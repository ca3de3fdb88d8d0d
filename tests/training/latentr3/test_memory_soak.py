"""A real language model, trained for 300 steps of changing shapes: memory stays flat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from latentrec.data import DataPrepConfig, generate_sample, prepare
from tests.fixtures.slow_figures import record_figure

ROOT = Path(__file__).resolve().parents[3]
STEPS, EVERY = 300, 50
LARGEST_SPREAD = 0.10
PEAK_GB = 6.0
BATCH = int(os.environ.get("SOAK_BATCH", "8"))

TRAINING = """
import json, resource, sys
from pathlib import Path
import psutil
from latentrec.training.common.metric_logger import NullMetricLogger
from latentrec.training.latentr3.sft import train_sft
from latentrec.training.latentr3.sft_config import SFTConfig

dataset, root, batch, steps, every = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
process = psutil.Process()
journal = (root / "journal.jsonl").open("a")

class Resident(NullMetricLogger):
    def log_metrics(self, metrics, step):
        if "train/loss" not in metrics:
            return
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        entry = {"step": step, "gb": process.memory_info().rss / 1e9, "peak": peak, **metrics}
        journal.write(json.dumps(entry) + "\\n")
        journal.flush()
        print(entry, flush=True)

config = SFTConfig(
    backbone="smollm2-135m", bf16=True, packing="none", batch_size=batch, learning_rate=2e-4,
    num_train_epochs=1, max_train_samples=batch * steps, logging_steps=every, save_steps=10_000,
    validation_samples=8, ranking_samples=0, evals_per_epoch=1,
)
train_sft(config, dataset=dataset, output=root / "model", metric_logger=Resident())
"""


@pytest.mark.slow
def test_memory_is_flat_over_300_steps_of_changing_shapes(tmp_path):
    reviews, metadata = generate_sample(tmp_path / "reviews")
    prepare(DataPrepConfig(reviews=(str(reviews),), metadata=(str(metadata),)), tmp_path / "dataset")
    command = [sys.executable, "-c", TRAINING, tmp_path / "dataset", tmp_path, BATCH, STEPS, EVERY]
    subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"},
        check=True,
        timeout=7000,
    )
    rows = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    resident = {row["step"]: row["gb"] for row in rows if row["step"] % EVERY == 0}
    assert list(resident) == list(range(EVERY, STEPS + 1, EVERY))
    record_figure(
        f"training soak, SmolLM2-135M, batch {BATCH}",
        f"{STEPS} steps: resident GB every {EVERY} steps "
        + ", ".join(f"{gb:.2f}" for gb in resident.values())
        + f"; peak {rows[-1]['peak']:.2f} GB, {rows[-1]['train/tokens_per_second']:,.0f} tokens/s",
    )
    assert max(resident.values()) <= (1 + LARGEST_SPREAD) * min(resident.values())
    assert rows[-1]["peak"] <= PEAK_GB
