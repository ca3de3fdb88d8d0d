"""Trainings that are killed, stopped, or run out of disk: what is kept, and that they go on bit for bit."""

import errno
import json
import os
import signal

import pytest

from latentrec.core import Interrupted
from latentrec.storage.local import LocalStore
from latentrec.training.latentr3 import sft as sft_module
from tests.training.latentr3.latentr3_runs import (
    Recorder,
    grpo,
    same_weights,
    sft,
)
from tests.training.latentr3.latentr3_runs import titles as train_titles

TIMINGS = ("train/tokens_per_second", "train/memory_peak_mb", "train/step_time", "train/resumed_at_step")


def comparable(recorder, after=-1):
    return [
        (step, {name: value for name, value in metrics.items() if name not in TIMINGS})
        for step, metrics in recorder.metrics
        if step > after and set(metrics) - set(TIMINGS)
    ]


@pytest.fixture
def run(request, dataset, stage_1):
    """(train(output, metric_logger, root), finished model, its figures) of the stage asked for."""
    if request.param == "sft":
        return lambda output, metric_logger, root: sft(dataset, output, metric_logger, root), *stage_1
    finished = request.getfixturevalue("titles" if request.param == "titles" else "stage_2")
    train = train_titles if request.param == "titles" else grpo
    return lambda output, metric_logger, root: train(
        dataset, stage_1[0], output, metric_logger, root
    ), *finished


both_stages = pytest.mark.parametrize("run", ["sft", "grpo", "titles"], indirect=True)
slow_sft, slow_grpo, slow_titles = (
    pytest.param(stage, marks=pytest.mark.slow) for stage in ("sft", "grpo", "titles")
)
stage_1_slow = pytest.mark.parametrize("run", [slow_sft, "grpo", slow_titles], indirect=True)
stage_2_slow = pytest.mark.parametrize("run", ["sft", slow_grpo, slow_titles], indirect=True)


class Killed(BaseException):
    """Ends a training between two steps with nothing saved, as SIGKILL does."""


def kill():
    raise Killed


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@both_stages
def test_same_seed_gives_the_same_weights(run, tmp_path):
    train, finished, recorder = run
    again = Recorder()
    train(tmp_path / "model", again, None)
    assert same_weights(finished, tmp_path / "model")
    assert comparable(again) == comparable(recorder)


@both_stages
@pytest.mark.parametrize(
    "step", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2, 3, 4, 6, 7))]
)
def test_killed_run_resumes_bit_for_bit(run, step, tmp_path):
    train, finished, recorder = run
    root = str(tmp_path / "checkpoints")
    with pytest.raises(Killed):
        train(tmp_path / "model", Recorder(step, kill), root)
    assert not (tmp_path / "model").exists()
    resumed = Recorder()
    train(tmp_path / "model", resumed, root)
    assert same_weights(finished, tmp_path / "model")
    began = max(resumed.series("train/resumed_at_step"), default=-1)
    assert began >= (step - 1) // 2 * 2 - (step <= 2)  # saved every second step, after the figures
    assert comparable(resumed, began) == comparable(recorder, began)


@both_stages
def test_sigterm_saves_and_the_next_run_goes_on_from_there(run, tmp_path):
    train, finished, _ = run
    root = str(tmp_path / "checkpoints")
    with pytest.raises(Interrupted, match="SIGTERM after step 3"):
        train(tmp_path / "model", Recorder(3, terminate), root)
    resumed = Recorder()
    train(tmp_path / "model", resumed, root)
    assert list(resumed.series("train/resumed_at_step")) == [3]
    assert same_weights(finished, tmp_path / "model")


@stage_2_slow
def test_full_disk_stops_the_run_and_leaves_it_resumable(run, tmp_path, monkeypatch):
    train, finished, _ = run
    root = str(tmp_path / "checkpoints")
    upload, uploads = LocalStore.upload_file, []

    def full(self, path, uri, **options):
        uploads.append(uri)
        if len(uploads) > 14:
            raise OSError(errno.ENOSPC, "No space left on device")
        return upload(self, path, uri, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "upload_file", full)
        with pytest.raises(Exception, match=r"(?i)no space left"):
            train(tmp_path / "model", Recorder(), root)
    assert not (tmp_path / "model").exists()
    train(tmp_path / "model", Recorder(), root)
    assert same_weights(finished, tmp_path / "model")


@stage_1_slow
def test_torn_checkpoint_is_passed_over_for_the_one_before(run, tmp_path):
    train, finished, _ = run
    root = tmp_path / "checkpoints"
    with pytest.raises(Killed):
        train(tmp_path / "model", Recorder(7, kill), str(root))
    newest = max(root.rglob("optimizer.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    resumed = Recorder()
    train(tmp_path / "model", resumed, str(root))
    assert list(resumed.series("train/resumed_at_step")) == [4]
    assert same_weights(finished, tmp_path / "model")


def test_a_run_that_died_while_it_wrote_its_model_is_not_trained_again(
    dataset, stage_1, tmp_path, monkeypatch
):
    root = tmp_path / "checkpoints"

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sft_module, "write_model", no_space)
        with pytest.raises(OSError, match="No space"):
            sft(dataset, tmp_path / "model", root=str(root))
    assert list(root.rglob("*.safetensors"))
    again = Recorder()
    sft(dataset, tmp_path / "model", again, str(root))
    assert not again.series("train/loss")
    assert same_weights(tmp_path / "model", stage_1[0])


def test_checkpoints_are_removed_when_the_model_is_written(dataset, tmp_path):
    root = tmp_path / "checkpoints"
    sft(dataset, tmp_path / "model", root=str(root))
    assert not list(root.rglob("*.safetensors"))


def test_checkpoints_hold_no_pickle(dataset, tmp_path):
    with pytest.raises(Killed):
        sft(dataset, tmp_path / "model", Recorder(5, kill), str(tmp_path / "checkpoints"))
    files = [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())
