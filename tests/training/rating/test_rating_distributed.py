"""Two gloo processes take the steps of one, with whole and with sharded weights: RecOne's cold start, and the
rating GRPO on the same rollouts."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from latentrec.storage import read_manifest
from latentrec.training.rating.stages import TracesConfig, make_traces
from tests.fixtures.worlds import run_world
from tests.training.latentr3.first_gradients import gradient_difference, sharded_gradients
from tests.training.rating.distributed_rating import RUNS, train_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SAME = [name for name in RUNS if "drawn" not in name]
ALONE = [name for name in RUNS if not name.endswith("_fsdp")]


def by_two(given: dict) -> None:
    """Run :func:`train_all` in two processes."""
    codes = run_world(2, "tests.training.rating.distributed_rating", json.dumps(given), timeout=1200)
    assert codes == [0, 0]


@pytest.fixture(scope="module")
def given(rating_dataset, base, tmp_path_factory):
    """What every training reads, and the folder for results."""
    folder = tmp_path_factory.mktemp("rating-worlds")
    make_traces(TracesConfig(samples=16), dataset=rating_dataset, output=folder / "traces.jsonl")
    shared = {"dataset": str(rating_dataset), "base": str(base), "traces": str(folder / "traces.jsonl")}
    return folder, shared


@pytest.fixture(scope="module")
def worlds(given):
    """Folder with ``one`` and ``two``: all trainings by one process and by two."""
    folder, shared = given
    by_two(shared | {"output": str(folder / "two"), "names": list(RUNS)})
    train_all(shared | {"output": str(folder / "one"), "names": ALONE})
    return folder


def largest_difference(first: Path, second: Path) -> float:
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    return max(float((one[key] - two[key]).abs().max()) for key in one)


@pytest.mark.parametrize("name", SAME)
def test_two_processes_take_the_steps_of_one(worlds, name):
    single = name.removesuffix("_fsdp")
    one, two = worlds / "one" / single, worlds / "two" / name
    curves = [json.loads((folder / "training_curve.json").read_text()) for folder in (one, two)]
    assert len(curves[0]) == len(curves[1]) > 1
    for alone, shared in zip(*curves, strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-5)
        assert shared.get("grad_norm", 0.0) == pytest.approx(alone.get("grad_norm", 0.0), rel=1e-4)
        assert shared.get("reward", 0.0) == pytest.approx(alone.get("reward", 0.0), abs=1e-6)
    loss = max(abs(alone["loss"] - shared["loss"]) for alone, shared in zip(*curves, strict=True))
    folders = worlds / "one" / "gradients" / single, worlds / "two" / "gradients" / name
    gradient, steepest = gradient_difference(*folders)
    weight = largest_difference(one, two)
    print(f"{name}: loss {loss:.1e}, gradient {gradient:.1e} of {steepest:.1e}, weights {weight:.1e}")
    assert gradient < 1e-4 * max(1.0, steepest)
    assert steepest > 1e-3, "gradients that are nothing are equal too"
    assert weight < 1e-5


@pytest.mark.parametrize("name", RUNS)
def test_weights_are_sharded_where_that_was_asked_for(worlds, name):
    sharded, gradients = sharded_gradients(worlds / "two" / "gradients" / name)
    assert sharded == (gradients if name.endswith("_fsdp") else 0)


@pytest.mark.parametrize("name", [name for name in SAME if name.endswith("_fsdp")])
def test_a_model_of_sharded_weights_is_described_as_any_other(worlds, name):
    one, two = worlds / "one" / name.removesuffix("_fsdp"), worlds / "two" / name
    for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
        assert (one / file).read_text() == (two / file).read_text()
    figures = [json.loads((folder / "model.json").read_text())["metrics"] for folder in (one, two)]
    assert figures[1] == pytest.approx(figures[0], abs=1e-5)


@pytest.mark.parametrize("name", ["cold_fsdp", "grpo_kl_fsdp"])
def test_a_checkpoint_of_two_sharded_processes_resumes_on_one(given, worlds, name):
    folder, shared = given
    there = shared | {"names": [name], "output": str(folder / "moved"), "checkpoints": str(folder / "kept")}
    by_two(there | {"stop": 2})
    assert not (folder / "moved" / name).exists()
    train_all(there)
    curves = [
        json.loads((path / "training_curve.json").read_text())
        for path in (folder / "moved" / name, worlds / "one" / name.removesuffix("_fsdp"))
    ]
    assert [entry["step"] for entry in curves[0]] == [entry["step"] for entry in curves[1]]
    weight = largest_difference(worlds / "one" / name.removesuffix("_fsdp"), folder / "moved" / name)
    print(f"{name}: resumed on one, weights {weight:.1e}")
    assert weight < 1e-5


def test_the_steps_change_the_weights_and_rollouts_differ_in_reward(worlds, base):
    before = load_file(base / "model.safetensors")
    for name in RUNS:
        after = load_file(worlds / "two" / name / "model.safetensors")
        assert any((before[key] - after[key]).abs().max() > 1e-4 for key in before), name
    curve = json.loads((worlds / "two" / "grpo" / "training_curve.json").read_text())
    assert all(entry["reward_std"] > 0 for entry in curve)


def test_drawn_rollouts_are_each_process_s_own_and_as_many(worlds):
    folders = worlds / "one" / "grpo_drawn", worlds / "two" / "grpo_drawn", worlds / "two" / "grpo_drawn_fsdp"
    counts = [read_manifest(folder, "model").counts for folder in folders]
    assert counts == [{"steps": 3, "completions": 48}] * 3
    curves = [json.loads((folder / "training_curve.json").read_text()) for folder in folders[1:]]
    assert curves[0] == [pytest.approx(entry, abs=1e-4) for entry in curves[1]], "the same draws, sharded"


def test_all_weights_are_finite(worlds):
    for name in RUNS:
        weights = load_file(worlds / "two" / name / "model.safetensors")
        assert all(torch.isfinite(value).all() for value in weights.values())
