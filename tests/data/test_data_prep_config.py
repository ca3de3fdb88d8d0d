"""Empty flags name no file; the fields of checks and places stay out of the identity."""

from latentrec.core import config_from_dict
from latentrec.data import DataPrepConfig
from latentrec.data.data_prep_config import NOT_IDENTITY
from tests.errors import refused


def test_empty_pipeline_parameters_name_no_file():
    config = config_from_dict(
        DataPrepConfig, {"reviews": "a.json, b.json", "metadata": "", "window_start": ""}
    )
    assert (config.reviews, config.metadata, config.window_start) == (("a.json", "b.json"), (), None)
    with refused("config.invalid", "--reviews", "--category"):
        config_from_dict(DataPrepConfig, {"reviews": " "})


def test_identity_holds_what_decides_the_content():
    config = DataPrepConfig(reviews=("a",), k_core=3)
    identity = config.identity()
    assert identity["k_core"] == 3
    assert not set(NOT_IDENTITY) & set(identity)
    assert set(NOT_IDENTITY) <= set(DataPrepConfig.model_fields)
