"""Model directories of earlier manifest schemas: evaluated, registered and served as before, or refused."""

import mlflow
import numpy as np
import pandas as pd
import pytest

from latentrec.data import Dataset
from latentrec.evaluation import EvaluateConfig, evaluate
from latentrec.registry.model_registry import Registry
from latentrec.registry.registration import register_model
from latentrec.serving.recommendation_service import ServingModel
from tests.errors import refused
from tests.fixtures.older_manifest import older_model
from tests.fixtures.shop import decision, write_evaluation

QUICK = EvaluateConfig(n_resamples=100, cost_samples=0, example_users=0)


def flat_options(info):
    """Before schema 4: fields that are no more, and none in groups."""
    info["config"] = {**info["config"], "max_grad_norm": 0.0, "step_view": "earlier"}


def width_called_dim(info):
    """Before schema 3."""
    info["architecture"]["dim"] = info["architecture"].pop("hidden_size")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_model_of_an_older_schema_is_evaluated_registered_and_served(tracked, shop, tmp_path, version):
    old = older_model(shop.sasrec, tmp_path / "old", version, flat_options)
    histories = Dataset(shop.dataset).split("valid").histories()
    ranked = [
        ServingModel.load(model, model / "items.parquet").recommender.rank(histories, 5).item_ids
        for model in (shop.sasrec, old)
    ]
    assert np.array_equal(*ranked)
    evaluate(QUICK, dataset=shop.dataset, models={"sasrec": old}, output=tmp_path / "evaluation")
    outcome = register_model(model_dir=old, evaluation_dir=tmp_path / "evaluation", name="latentr3")
    served = mlflow.pyfunc.load_model(outcome.model.uri)
    answer = served.predict(pd.DataFrame({"history": [["B0003"]]}), {"k": 3})
    assert len(answer["item_keys"][0]) == 3


@pytest.mark.parametrize("version", [1, 2])
def test_encoder_with_an_older_architecture_is_refused_by_name(tracked, shop, tmp_path, version):
    old = older_model(shop.sasrec, tmp_path / "old", version, width_called_dim)
    with refused("manifest.other_version", "old", "'dim'"):
        evaluate(QUICK, dataset=shop.dataset, models={"sasrec": old}, output=tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()
    with refused("manifest.other_version", "old", "'dim'"):
        ServingModel.load(old, old / "items.parquet")
    evaluation = write_evaluation(tmp_path / "elsewhere", old, decision())
    with refused("manifest.other_version", "old", "'dim'"):
        register_model(model_dir=old, evaluation_dir=evaluation, name="latentr3")
    assert Registry().versions("latentr3") == []


@pytest.mark.parametrize("version", [0, 5])
def test_model_of_an_unknown_schema_is_refused_by_its_version(tracked, shop, tmp_path, version):
    evaluation = write_evaluation(tmp_path / "elsewhere", shop.sasrec, decision())
    other = older_model(shop.sasrec, tmp_path / "other", version)
    with refused("manifest.other_version", f"schema_version is {version}"):
        evaluate(QUICK, dataset=shop.dataset, models={"sasrec": other}, output=tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()
    with refused("manifest.other_version", f"schema_version is {version}"):
        ServingModel.load(other, other / "items.parquet")
    with refused("manifest.other_version", f"schema_version is {version}"):
        register_model(model_dir=other, evaluation_dir=evaluation, name="latentr3")
