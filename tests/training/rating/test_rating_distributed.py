"""Two gloo processes take the steps of one: RecOne's cold start, and the rating GRPO on the same rollouts."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from latentrec.storage import read_manifest
from latentrec.training.rating.stages import TracesConfig, make_traces
from tests.training.rating.distributed_rating import RUNS, train_all

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SAME = [name for name in RUNS if name != "grpo_drawn"]


@pytest.fixture(scope="module")
def worlds(rating_dataset, base, tmp_path_factory):
    """Folder with ``one`` and ``two``: all trainings by one process and by two."""
    folder = tmp_path_factory.mktemp("rating-worlds")
    make_traces(TracesConfig(samples=16), dataset=rating_dataset, output=folder / "traces.jsonl")
    given = {"dataset": str(rating_dataset), "base": str(base), "traces": str(folder / "traces.jsonl")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "tests.training.rating.distributed_rating"]
    command.append(json.dumps(given | {"output": str(folder / "two")}))
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    train_all(given | {"output": str(folder / "one")})
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)[-4000:]
    return folder


@pytest.mark.parametrize("name", SAME)
def test_two_processes_take_the_steps_of_one(worlds, name):
    curves = [
        json.loads((worlds / world / name / "training_curve.json").read_text()) for world in ("one", "two")
    ]
    assert len(curves[0]) == len(curves[1]) > 1
    for alone, shared in zip(*curves, strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-5)
        assert shared.get("grad_norm", 0.0) == pytest.approx(alone.get("grad_norm", 0.0), rel=1e-4)
        assert shared.get("reward", 0.0) == pytest.approx(alone.get("reward", 0.0), abs=1e-6)
    one, two = (load_file(worlds / world / name / "model.safetensors") for world in ("one", "two"))
    largest = max(float((one[key] - two[key]).abs().max()) for key in one)
    print(f"{name}: two processes against one, weights differ by {largest:.1e} at most")
    assert one.keys() == two.keys()
    assert largest < 1e-5


def test_the_steps_change_the_weights_and_rollouts_differ_in_reward(worlds, base):
    before = load_file(base / "model.safetensors")
    for name in RUNS:
        after = load_file(worlds / "two" / name / "model.safetensors")
        assert any((before[key] - after[key]).abs().max() > 1e-4 for key in before), name
    curve = json.loads((worlds / "two" / "grpo" / "training_curve.json").read_text())
    assert all(entry["reward_std"] > 0 for entry in curve)


def test_drawn_rollouts_are_each_process_s_own_and_as_many(worlds):
    counts = [read_manifest(worlds / world / "grpo_drawn", "model").counts for world in ("one", "two")]
    assert counts[0] == counts[1] == {"steps": 3, "completions": 48}


def test_all_weights_are_finite(worlds):
    for name in RUNS:
        weights = load_file(worlds / "two" / name / "model.safetensors")
        assert all(torch.isfinite(value).all() for value in weights.values())
