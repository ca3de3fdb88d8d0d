"""Two gloo processes share the steps of RecOne's cold start and of the rating GRPO."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from latentrec.core import UserError
from latentrec.storage import read_manifest
from latentrec.training.rating.stages import TracesConfig, make_traces
from tests.training.rating.distributed_rating import COLD, GRPO, train_both

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def worlds(rating_dataset, base, tmp_path_factory):
    """Folder with ``one`` and ``two``: both trainings by one process and by two."""
    folder = tmp_path_factory.mktemp("rating-worlds")
    make_traces(TracesConfig(samples=16), dataset=rating_dataset, output=folder / "traces.jsonl")
    given = {"dataset": str(rating_dataset), "base": str(base), "traces": str(folder / "traces.jsonl")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    shared |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "tests.training.rating.distributed_rating"]
    command.append(json.dumps(given | {"output": str(folder / "two")}))
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    train_both(given | {"output": str(folder / "one")})
    outputs = [process.communicate(timeout=1000)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)[-4000:]
    return folder


def test_cold_start_of_two_processes_takes_the_steps_of_one(worlds):
    one, two = (load_file(worlds / world / "cold" / "model.safetensors") for world in ("one", "two"))
    largest = max(float((one[name] - two[name]).abs().max()) for name in one)
    print(f"cold start, two processes against one: max {largest:.2e}")
    assert one.keys() == two.keys()
    assert largest < 2e-4


def test_grpo_of_two_processes_has_the_batch_of_one(worlds):
    """Its rollouts are others (each process draws its own); steps, prompts and completions are as many."""
    counts = [read_manifest(worlds / world / "grpo", "model").counts for world in ("one", "two")]
    assert counts[0] == counts[1] == {"steps": 2, "completions": 32}
    weights = [
        load_file(path / "model.safetensors") for path in (worlds / "one" / "grpo", worlds / "two" / "grpo")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])


@pytest.mark.parametrize(("config", "processes"), [(COLD, 3), (GRPO, 3), (COLD.replace(batch_size=6), 4)])
def test_a_batch_that_cannot_be_shared_evenly_is_refused(config, processes):
    with pytest.raises(UserError, match=f"cannot be shared evenly by {processes} processes"):
        config.check_world(processes)
