"""Both commands killed from outside, as a preempted pod is: SIGKILL at any moment, SIGTERM with exit 143."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.latentr3_runs import same_weights

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = {
    "sft": "--backbone micro --num-train-epochs 6 --batch-size 32 --save-steps 2 --ranking-samples 10",
    "grpo": "--batch-size 64 --num-generations 4 --max-steps 24 --save-steps 2 --ranking-samples 10",
    "grpo-gaussian": "--batch-size 64 --num-generations 4 --max-steps 24 --save-steps 2 --ranking-samples 10 "
    "--estimator gaussian",
}


def start(stage: str, folder: Path, output: Path, root: Path | None) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "latentrec",
        stage.partition("-")[0],
        "--dataset",
        str(folder / "dataset"),
    ]
    command += ["--output", str(output), *OPTIONS[stage].split(), "--no-load-best-model-at-end"]
    command += ["--model", str(folder / "stage_1")] if stage != "sft" else []
    command += ["--checkpoint-root", str(root)] if root else []
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LATENTREC_"))}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors[-3000:]


def wait_for_checkpoint(process: subprocess.Popen, root: Path, beyond: int) -> None:
    """Until a checkpoint of a step after ``beyond`` is being written, or the process ends."""
    while process.poll() is None:
        names = [path.name for path in root.glob("*/*") if path.is_dir()]
        if any(int(name.split("-")[0]) > beyond for name in names):
            return
        time.sleep(0.002)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    write_dataset(folder / "dataset", n_users=60, n_items=24, length=(4, 9))
    finish(start("sft", folder, folder / "stage_1", None))
    return folder


@pytest.fixture(scope="module")
def finished(folder):
    finish(start("grpo", folder, folder / "stage_2", None))
    return {"sft": folder / "stage_1", "grpo": folder / "stage_2"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_killed_again_and_again_it_ends_with_the_same_weights(folder, finished, stage, tmp_path):
    kills, step = 0, 0
    while kills < 6:
        process = start(stage, folder, tmp_path / "model", tmp_path / "checkpoints")
        wait_for_checkpoint(process, tmp_path / "checkpoints", step)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills, step = kills + 1, step + 3
        assert not (tmp_path / "model").exists()
    finish(start(stage, folder, tmp_path / "model", tmp_path / "checkpoints"))
    assert kills >= 3
    assert same_weights(tmp_path / "model", finished[stage])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_sigterm_exits_143_and_the_command_resumes(folder, finished, stage, tmp_path):
    process = start(stage, folder, tmp_path / "model", tmp_path / "checkpoints")
    wait_for_checkpoint(process, tmp_path / "checkpoints", 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors[-2000:]
    assert "SIGTERM" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "model").exists()
    finish(start(stage, folder, tmp_path / "model", tmp_path / "checkpoints"))
    assert same_weights(tmp_path / "model", finished[stage])
