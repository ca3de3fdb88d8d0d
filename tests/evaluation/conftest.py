"""The test double as a system of its own, a dataset, and models of chosen skill."""

import pytest

from latentrec.data import Dataset
from latentrec.decoding import recommender_loader as loading
from tests.evaluation.shop import load_oracle, write_dataset, write_model


@pytest.fixture(autouse=True)
def oracle_system(monkeypatch):
    monkeypatch.setitem(loading.LOADERS, "oracle", load_oracle)
    monkeypatch.setitem(loading.LOADERS, "sasrec", load_oracle)


@pytest.fixture(autouse=True)
def charts_are_sketched(sketched_charts):
    """Charts are looked at in ``report`` and by the tests that ask for ``real_charts``."""


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("evaluation") / "dataset")


@pytest.fixture
def make_model(tmp_path, dataset):
    def make(name, **settings):
        settings.setdefault("dataset_fingerprint", Dataset(dataset).fingerprint)
        return write_model(tmp_path / name, **settings)

    return make
