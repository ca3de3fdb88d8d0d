"""Several gloo processes take the steps of one, dropout and all: every encoder, LARES in both phases."""

import json
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from latentrec.core import UserError
from latentrec.training.sequential.rpt_config import RPTConfig
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.train import train_sequential
from tests.errors import refused
from tests.fixtures.sequential_data import write_dataset
from tests.fixtures.worlds import run_world
from tests.training.sequential import shared_runs
from tests.training.sequential.shared_runs import RUNS, SPT

pytestmark = pytest.mark.timeout(1800)  # most of it is starting processes, which a busy machine drags out


def train_by(size: int, given: dict) -> list[int]:
    """Exit codes of as many processes of :mod:`shared_runs`."""
    return run_world(size, "tests.training.sequential.shared_runs", json.dumps(given), timeout=900)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """What every world is given: a dataset and a pre-trained LARES."""
    folder = tmp_path_factory.mktemp("worlds")
    write_dataset(folder / "dataset", n_users=40)
    train_sequential(SPT, dataset=folder / "dataset", output=folder / "spt")
    return {"dataset": str(folder / "dataset"), "spt": str(folder / "spt"), "folder": str(folder)}


@pytest.fixture(scope="module")
def worlds(shop):
    """Folder with ``one`` and ``two``: all runs by one process and by two."""
    folder = Path(shop["folder"])
    assert train_by(2, {**shop, "runs": [*RUNS], "output": str(folder / "two")}) == [0, 0]
    shared_runs.main({**shop, "runs": [*RUNS], "output": str(folder / "one")})
    return folder


def weights_of(folder: Path):
    return load_file(folder / "model" / "model.safetensors")


def largest_difference(one, two) -> float:
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_take_the_steps_of_one(worlds, name):
    one, two = (worlds / world / name for world in ("one", "two"))
    alone, shared = (json.loads((folder / "losses.json").read_text()) for folder in (one, two))
    assert alone.keys() == shared.keys()
    assert len(alone) > 2
    loss = max(abs(alone[step] - shared[step]) for step in alone)
    gradients = [load_file(folder / "gradients.safetensors") for folder in (one, two)]
    gradient = largest_difference(*gradients)
    scale = max(float(one.abs().max()) for one in gradients[0].values())
    weights = largest_difference(weights_of(one), weights_of(two))
    print(f"{name}: loss {loss:.1e}, gradient {gradient:.1e} of {scale:.1e}, weights {weights:.1e}")
    assert loss < 1e-5
    assert gradient < 1e-4 * scale
    assert scale > 1e-4, "gradients that are nothing are equal too"
    assert weights < 1e-4
    figures = [json.loads((folder / "model" / "model.json").read_text())["metrics"] for folder in (one, two)]
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("sasrec_drawn", 1),
        pytest.param("sasrec_drawn", 3, marks=pytest.mark.slow),
        pytest.param("rpt_smoothed", 1, marks=pytest.mark.slow),
        pytest.param("rpt_smoothed", 3, marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_two_processes_resumes_on_another_number(worlds, shop, name, size):
    """One of two processes is told to stop: both do, after the same step."""
    given = {**shop, "runs": [name], "output": str(worlds / f"half-{size}")}
    given["checkpoints"] = str(worlds / f"store-{name}-{size}")
    assert train_by(2, {**given, "end": [1, 3, int(signal.SIGTERM)]}) == [0, 0]
    folder = worlds / f"half-{size}" / name
    assert not (folder / "model").exists()
    if size == 1:
        shared_runs.main(given)
    else:
        assert train_by(size, given) == [0] * size
    assert min(map(int, json.loads((folder / "losses.json").read_text()))) == 4, "it went on after step 3"
    weights = largest_difference(weights_of(worlds / "one" / name), weights_of(folder))
    print(f"{name}: {size} processes after two, weights {weights:.1e}")
    assert weights < 1e-4


@pytest.mark.slow
def test_four_processes_share_batches_of_one_or_two_rows(worlds, shop):
    names = ["sasrec_few_rows", "spt_few_rows"]
    assert train_by(4, {**shop, "runs": names, "output": str(worlds / "four")}) == [0] * 4
    for name in names:
        weights = largest_difference(weights_of(worlds / "one" / name), weights_of(worlds / "four" / name))
        print(f"{name}: four processes, weights {weights:.1e}")
        assert weights < 1e-4


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other_and_costs_no_result(worlds, shop):
    given = {**shop, "runs": ["spt"], "output": str(worlds / "killed"), "checkpoints": str(worlds / "store")}
    steps = max(map(int, json.loads((worlds / "one" / "spt" / "losses.json").read_text())))
    last = steps // 2 + 2  # the first epoch's checkpoint is there
    codes = train_by(2, {**given, "end": [1, last, int(signal.SIGKILL)]})
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    assert not (worlds / "killed" / "spt" / "model").exists()
    assert train_by(2, given) == [0, 0]
    resumed = json.loads((worlds / "killed" / "spt" / "losses.json").read_text())
    assert min(map(int, resumed)) == steps // 2 + 1
    assert (
        largest_difference(weights_of(worlds / "two" / "spt"), weights_of(worlds / "killed" / "spt")) == 0.0
    )


@pytest.mark.parametrize("config", [SequentialConfig(batch_size=3), RPTConfig(batch_size=3)])
def test_fewer_targets_than_processes_are_refused(config, monkeypatch, tmp_path):
    with refused("config.conflict", "batch_size is 3", "4 processes"):
        config.check_world(4)
    config.check_world(3)
    monkeypatch.setenv("WORLD_SIZE", "4")
    if isinstance(config, SequentialConfig):
        with pytest.raises(UserError, match="4 processes"):
            train_sequential(config, dataset=tmp_path / "data", output=tmp_path / "m")
