"""Two gloo processes take the steps of one process at equal batch, in both stages and both estimators."""

import pytest

from tests.fixtures.sequential_data import write_dataset
from tests.fixtures.worlds import run_world
from tests.training.latentr3.distributed_runs import RUNS, train_all
from tests.training.latentr3.first_gradients import gradient_difference, sharded_gradients
from tests.training.latentr3.latentr3_runs import sft, weight_difference

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Folder with ``one`` and ``two``: the same runs by one process and by two."""
    folder = tmp_path_factory.mktemp("worlds")
    write_dataset(folder / "dataset", n_users=40, n_items=24, length=(4, 9))
    sft(folder / "dataset", folder / "stage_1", num_train_epochs=1, ranking_samples=0)
    runs = "tests.training.latentr3.distributed_runs"
    codes = run_world(2, runs, str(folder / "two"), timeout=800, meanwhile=lambda: train_all(folder / "one"))
    assert codes == [0, 0]
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_take_the_steps_of_one(worlds, name):
    largest, mean = weight_difference(worlds / "one" / name, worlds / "two" / name)
    print(f"{name}: two processes against one: max {largest:.2e}, mean {mean:.2e}")
    assert largest < 2e-4
    assert mean < 1e-6
    folders = [worlds / world / "gradients" / name for world in ("one", "two")]
    gradient, _ = gradient_difference(*folders)
    assert gradient < 1e-4
    sharded, gradients = sharded_gradients(folders[1])
    assert sharded == (gradients if name.endswith("_sharded") else 0)
