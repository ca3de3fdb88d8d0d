"""A dataset and the two stages trained on it once; tests read them and change nothing."""

import pytest

from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.latentr3_runs import Recorder, grpo, sft
from tests.training.latentr3.latentr3_runs import titles as train_titles


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "dataset", n_users=60, n_items=24, length=(4, 9))


@pytest.fixture(scope="session")
def stage_1(dataset, tmp_path_factory):
    output = tmp_path_factory.mktemp("stage_1") / "model"
    recorder = Recorder()
    sft(dataset, output, recorder)
    return output, recorder


@pytest.fixture(scope="session")
def stage_2(dataset, stage_1, tmp_path_factory):
    output = tmp_path_factory.mktemp("stage_2") / "model"
    recorder = Recorder()
    grpo(dataset, stage_1[0], output, recorder)
    return output, recorder


@pytest.fixture(scope="session")
def titles(dataset, stage_1, tmp_path_factory):
    """Stage 2 with titles as actions."""
    output = tmp_path_factory.mktemp("titles") / "model"
    recorder = Recorder()
    train_titles(dataset, stage_1[0], output, recorder)
    return output, recorder
