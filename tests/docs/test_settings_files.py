"""The settings files of examples/: every name and value is one that the pipeline takes."""

from pathlib import Path

import pytest

from latentrec.core.config_values import read_settings
from latentrec.steps.node_pools import choose_pool
from latentrec.steps.parameters import check_parameters
from pipeline.dags import parse_parameters

FOLDER = Path(__file__).resolve().parents[2] / "examples/settings"
FILES = {"paper", "small-gpu", "large-gpu", "cpu", "pretrained-cpu"}


def test_there_is_one_for_each_kind_of_machine():
    assert {path.stem for path in FOLDER.iterdir()} == FILES


@pytest.mark.parametrize("name", sorted(FILES))
def test_settings_file_is_accepted_by_every_step(name):
    path = FOLDER / f"{name}.yaml"
    given = parse_parameters("latentr3", "customer_reviews=reviews.json data_metadata=meta.json", str(path))
    settings = given.pop("settings", {})
    choose_pool(given)
    checked = check_parameters("latentr3", given, settings)
    for key, value in read_settings(path).items():
        step, _, field = key.partition(".")
        if field:
            assert checked[step][field] == value, key
        else:
            assert given[key] == value or given[key] == str(value), key
