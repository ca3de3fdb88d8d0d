"""An MLflow store of one's own for each test: the database is made once and copied."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shop import Shop, make_shop, write_evaluation


@dataclass
class TrackedRun:
    """The environment of one pipeline run on an embedded store."""

    root: Path
    uri: str

    @property
    def client(self):
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.uri)

    def runs(self) -> list:
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        return self.client.search_runs(experiments, max_results=1000)

    def steps(self, step: str) -> list:
        return [run for run in self.runs() if run.data.tags.get("latentrec.step") == step]

    def parents(self) -> list:
        return [run for run in self.runs() if run.data.tags.get("latentrec.role") == "pipeline"]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracked(tmp_path, empty_store, monkeypatch) -> TrackedRun:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-1")
    monkeypatch.setenv("LATENTREC_PIPELINE", "latentr3")
    monkeypatch.setenv("LATENTREC_STATUS_ROOT", str(tmp_path / "status"))
    monkeypatch.setenv("LATENTREC_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("LATENTREC_GIT_SHA", "abc123")
    monkeypatch.setenv("LATENTREC_IMAGE_DIGEST", "sha256:feed")
    for name in ("LATENTREC_STEP", "MLFLOW_RUN_ID", "LATENTREC_PARENT_MLFLOW_RUN", "RANK"):
        monkeypatch.delenv(name, raising=False)
    return TrackedRun(tmp_path, uri)


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def register(tracked, shop, tmp_path):
    """Register a model of the shop with a given verdict, as its own pipeline run."""
    from latentrec.tracking import register_model

    numbers = iter(range(1000))

    def call(gate, model=None, name="latentr3", run_id=None, monkeypatch=None, **options):
        number = next(numbers)
        os.environ["LATENTREC_RUN_ID"] = run_id or f"run-{number}"
        model = model or shop.sasrec
        evaluation = write_evaluation(tmp_path / f"evaluation-{number}", model, gate)
        return register_model(
            model_dir=model, evaluation_dir=evaluation, name=name, dataset_dir=shop.dataset, **options
        )

    return call


def pytest_collection_modifyitems(items):
    """One worker runs this folder: its session fixtures (a trained shop, a database) are made once."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("tracking"))
