"""The direction study finds uphill what is uphill, and leaves the model as it was."""

import pytest

from benchmarks.rpt_direction import study_directions
from latentrec.training.sequential.rpt_config import RPTConfig
from latentrec.training.sequential.train import SequentialConfig, train_sequential
from tests.fixtures.sequential_data import write_dataset


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("direction")
    dataset = write_dataset(root / "data", n_users=40)
    config = SequentialConfig(encoder="lares", hidden_size=8, inner_dim=16, num_train_epochs=6, batch_size=64)
    train_sequential(config, dataset=dataset, output=root / "spt")
    return study_directions(
        RPTConfig(k=3, filter_top=10, batch_size=100), dataset=dataset, model=root / "spt", steps=(0.01,)
    )


def test_smoothed_reward_and_likelihood_of_the_target_are_uphill(study):
    slopes = {slope.name: slope for slope in study.slopes}
    for name in ("smoothed", "cross_entropy"):
        assert slopes[name].train > 2 * slopes[name].train_error


def test_cosines_are_symmetric_with_ones_on_the_diagonal(study):
    for a, row in study.cosines.items():
        assert row[a] == pytest.approx(1, abs=1e-5)
        for b in row:
            assert row[b] == pytest.approx(study.cosines[b][a], abs=1e-6)
