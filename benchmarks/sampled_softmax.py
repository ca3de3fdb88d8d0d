"""A training step of SASRec over 1.2 million items: the softmax over all of them, and over drawn ones.

Each side is a process of its own, for its peak memory. The data are generated: speed does not depend on what
the items are.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import record
from latentrec.models.sequential import SASRec
from latentrec.training.sequential.rows import Rows
from latentrec.training.sequential.sequential_config import NUM_NEGATIVES, SequentialConfig
from latentrec.training.sequential.state import reseed
from latentrec.training.sequential.train import make_loss

N_ITEMS, LENGTH, REPEATS = 1_200_000, 16, 3
SIDES = {
    "full_128": (0, 128),
    "full_256": (0, 256),
    "sampled_128": (NUM_NEGATIVES, 128),
    "sampled_1024": (NUM_NEGATIVES, 1024),
}
"""Items drawn (0: all) and targets a step."""


def run() -> None:
    """Measure and record ``sampled_softmax_step_vs_full``."""
    rows = {name: _in_a_process(name) for name in SIDES}
    record(
        "sampled_softmax_step_vs_full",
        rows["sampled_128"]["cpu_s"],
        rows["full_128"]["cpu_s"],
        "processor seconds/step",
        REPEATS,
        {"items": N_ITEMS, "drawn": NUM_NEGATIVES, "targets": 128, "hidden_size": 64, "threads": 1},
        reference_is="the same step with the softmax over all items",
        table=[
            {
                "softmax over": f"{SIDES[name][0] or N_ITEMS:,} items",
                "targets a step": SIDES[name][1],
                "processor seconds a step": row["cpu_s"],
                "peak MB": row["peak_mb"],
            }
            for name, row in rows.items()
        ],
        note="median of the steps after a first one; peak of the whole process, Adam's state in it",
    )


def measure(num_negatives: int, targets: int) -> dict[str, float]:
    """Processor seconds a step, and the peak of this process in MB."""
    torch.set_num_threads(1)
    users = targets // LENGTH
    items = np.random.default_rng(0).integers(0, N_ITEMS, users * LENGTH + 1)
    rows = Rows(np.arange(users + 1) * LENGTH, items[:-1], items[1:])
    encoder = SASRec(n_items=N_ITEMS, max_length=LENGTH).train()
    loss = make_loss(SequentialConfig(num_negatives=num_negatives), encoder, rows)
    optimizer = torch.optim.Adam(encoder.parameters())
    seconds = []
    for step in range(1 + REPEATS):
        reseed(0, step)
        begun = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        loss(np.arange(users))[0].backward()
        optimizer.step()
        seconds.append(time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"cpu_s": statistics.median(seconds[1:]), "peak_mb": peak}


def _in_a_process(name: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.sampled_softmax", *map(str, SIDES[name])]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
