"""``train_sequential`` as a whole: learns, repeats itself, resumes, and says what is wrong."""

import json

import numpy as np
import pytest

from latentrec.catalog import Catalogue
from latentrec.core import Interrupted
from latentrec.data import Dataset
from latentrec.models import Recommender
from latentrec.models.popularity import Popularity
from latentrec.models.sequential import SequentialRecommender
from latentrec.training.common.divergence import TrainingDiverged
from latentrec.training.sequential import training_loop
from latentrec.training.sequential.train import SequentialConfig, train_sequential
from tests.errors import refused
from tests.fixtures.sequential_data import write_dataset

TINY = {"hidden_size": 16, "inner_dim": 32, "num_train_epochs": 12, "batch_size": 64, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("seq") / "data")


class Curves:
    def __init__(self):
        self.points = []

    def log_metrics(self, metrics, step):
        self.points.append((step, dict(metrics)))

    def log_params(self, params):
        pass

    def log_artifact(self, path):
        pass


def test_sasrec_learns_order_that_popularity_cannot(dataset, tmp_path):
    train_sequential(SequentialConfig(**TINY), dataset=dataset, output=tmp_path / "sasrec")
    train_sequential(SequentialConfig(encoder="popularity"), dataset=dataset, output=tmp_path / "pop")
    catalogue, test = Catalogue.from_dataset(Dataset(dataset)), Dataset(dataset).split("test")
    models: dict[str, Recommender] = {
        "sasrec": SequentialRecommender.load(tmp_path / "sasrec", catalogue),
        "pop": Popularity.load(tmp_path / "pop", catalogue),
    }
    hits = {
        name: np.mean(model.rank(test.histories(), 3).item_ids == test.targets[:, None]) * 3
        for name, model in models.items()
    }
    assert hits["sasrec"] > 0.4
    assert hits["sasrec"] > hits["pop"] + 0.2


def test_curves_are_streamed_one_validation_an_epoch(dataset, tmp_path):
    metric_logger = Curves()
    config = SequentialConfig(**{**TINY, "num_train_epochs": 3})
    train_sequential(config, dataset=dataset, output=tmp_path / "m", metric_logger=metric_logger)
    assert sum("valid/ndcg_at_10" in metrics for _, metrics in metric_logger.points) == 3


def test_the_same_seed_gives_the_same_model_and_another_gives_another(dataset, tmp_path):
    config = {**TINY, "num_train_epochs": 2}
    prints = [
        train_sequential(
            SequentialConfig(**config, seed=seed), dataset=dataset, output=tmp_path / name
        ).fingerprint
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_best_epoch_is_kept_and_training_stops_after_patience(dataset, tmp_path, monkeypatch):
    values = iter([0.1, 0.3, 0.2, 0.25, 0.9])
    monkeypatch.setattr(
        "latentrec.training.sequential.train.validation_figures", lambda *a: {"ndcg_at_10": next(values)}
    )
    config = SequentialConfig(**{**TINY, "patience": 2})
    train_sequential(config, dataset=dataset, output=tmp_path / "m")
    metrics = json.loads((tmp_path / "m/model.json").read_text())["metrics"]
    assert metrics["ndcg_at_10"] == 0.3
    assert metrics["best_epoch"] == 2
    assert metrics["epochs"] == 4


def test_interrupted_in_the_middle_of_an_epoch_resumes_bit_for_bit(dataset, tmp_path, monkeypatch):
    config = SequentialConfig(**{**TINY, "num_train_epochs": 3})
    whole = train_sequential(config, dataset=dataset, output=tmp_path / "whole")
    steps = iter(range(1000))
    real = training_loop._step

    def step_then_terminate(*arguments):
        real(*arguments)
        if next(steps) == 7:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training_loop, "_step", step_then_terminate)
    with pytest.raises(Interrupted):
        train_sequential(
            config, dataset=dataset, output=tmp_path / "m", checkpoint_root=str(tmp_path / "checkpoints")
        )
    assert not (tmp_path / "m").exists()
    resumed = train_sequential(
        config, dataset=dataset, output=tmp_path / "m", checkpoint_root=str(tmp_path / "checkpoints")
    )
    assert next(steps) > 8
    assert resumed.fingerprint == whole.fingerprint


def test_checkpoints_are_removed_when_the_step_has_succeeded(dataset, tmp_path):
    root = tmp_path / "checkpoints"
    config = SequentialConfig(**{**TINY, "num_train_epochs": 2})
    train_sequential(config, dataset=dataset, output=tmp_path / "m", checkpoint_root=str(root))
    assert not list(root.rglob("*.safetensors"))


def test_a_loss_that_is_not_finite_stops_the_run(dataset, tmp_path):
    config = SequentialConfig(**{**TINY, "learning_rate": 1e9})
    with pytest.raises(TrainingDiverged, match="learning_rate"):
        train_sequential(config, dataset=dataset, output=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_tuning_keeps_the_best_variant_and_lists_all(dataset, tmp_path):
    config = SequentialConfig(**{**TINY, "num_train_epochs": 2, "tune": 3})
    train_sequential(config, dataset=dataset, output=tmp_path / "m")
    body = json.loads((tmp_path / "m/model.json").read_text())
    assert len(body["notes"]) == 3
    assert body["metrics"]["ndcg_at_10"] == pytest.approx(
        max(float(note.rsplit(" ", 1)[1]) for note in body["notes"]), abs=1e-4
    )


def test_recent_popularity_counts_the_last_days_only(dataset, tmp_path):
    config = SequentialConfig(encoder="popularity", popularity_days=2)
    train_sequential(config, dataset=dataset, output=tmp_path / "m")
    data = Dataset(dataset)
    train = data.split("train")
    late = train.timestamps > data.manifest.extra["train_end"] - 2 * 86_400
    model = Popularity.load(tmp_path / "m", Catalogue.from_dataset(data))
    assert model.scores.tolist() == np.bincount(train.targets[late], minlength=data.n_items).tolist()


@pytest.mark.parametrize(
    ("field", "value"),
    [("dim", 0), ("hidden_dropout", 1.0), ("learning_rate", 0.0), ("heads", 3), ("patience", 0)],
)
def test_a_setting_out_of_range_is_named(field, value):
    with refused("config.invalid", field):
        SequentialConfig(**{field: value})
