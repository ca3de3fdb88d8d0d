"""A part of the training samples by time: disjoint, complete, and refused where it is none."""

import numpy as np
import pytest

from latentrec.data import Dataset
from latentrec.data.time_range import within_time_range
from latentrec.training.latentr3.grpo_config import LatentGRPOConfig
from latentrec.training.latentr3.sft_config import SFTConfig
from latentrec.training.latentr3.title_objective_config import TitleObjectiveConfig
from tests.errors import refused
from tests.fixtures.sequential_data import write_dataset


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    directory = write_dataset(tmp_path_factory.mktemp("d") / "d", n_users=30, n_items=20, length=(3, 16))
    return Dataset(directory).split("train")


def keys(samples):
    lengths = np.diff(samples.history_offsets)
    return set(zip(samples.user_ids.tolist(), lengths.tolist(), samples.targets.tolist(), strict=True))


def test_two_parts_are_disjoint_complete_and_in_order_of_time(train):
    shuffled = train.subset(np.random.default_rng(0).permutation(len(train)))
    early, late = within_time_range(shuffled, 0.0, 0.8), within_time_range(shuffled, 0.8, 1.0)
    assert len(early) == round(0.8 * len(train))
    assert early.timestamps.max() <= late.timestamps.min()
    assert keys(early) | keys(late) == keys(train)
    assert not keys(early) & keys(late)


def test_split_order_and_the_whole_are_kept(train):
    assert within_time_range(train, 0.0, 1.0) is train
    late = within_time_range(train, 0.5, 1.0)
    places = [
        np.flatnonzero((train.user_ids == u) & (train.timestamps == t))[0]
        for u, t in zip(late.user_ids, late.timestamps, strict=True)
    ]
    assert places == sorted(places)


@pytest.mark.parametrize("config", [SFTConfig, LatentGRPOConfig, TitleObjectiveConfig])
@pytest.mark.parametrize("part", [(0.8, 0.8), (-0.1, 1.0), (0.0, 1.2), (0.9, 0.1)])
def test_a_part_that_is_none_is_refused(config, part):
    wrong = part[1] if part[1] > 1 else part[0]
    with refused("config.invalid", f"{config.step_name}.train_", str(wrong)):
        config(train_from=part[0], train_to=part[1])


def test_a_part_without_samples_is_refused(train):
    with refused("dataset.nothing_left"):
        within_time_range(train.subset(np.arange(3)), 0.9, 1.0)
