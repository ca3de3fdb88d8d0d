"""The depth study: what it writes is what the model does at that depth, and it repeats itself."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from latentrec.catalog import Catalogue
from latentrec.data import Dataset
from latentrec.evaluation.ranking.depth import depth_study
from latentrec.evaluation.ranking.depth_config import DepthConfig
from latentrec.metrics import ndcg_at_k, rank_of_target
from latentrec.models.sequential import SequentialRecommender
from latentrec.training.sequential.train import SequentialConfig, train_sequential
from tests.errors import refused
from tests.fixtures.sequential_data import write_dataset


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("depth")
    dataset = write_dataset(root / "data", n_users=30)
    for encoder in ("lares", "sasrec"):
        config = SequentialConfig(
            encoder=encoder, hidden_size=8, inner_dim=16, num_train_epochs=2, batch_size=64
        )
        train_sequential(config, dataset=dataset, output=root / encoder)
    return dataset, root


def study(trained, output, **settings):
    dataset, root = trained
    depth_study(DepthConfig(**settings), dataset=dataset, model=root / "lares", output=output)
    return json.loads((output / "depth.json").read_text())


def test_figures_are_those_of_the_model_at_that_depth(trained, tmp_path):
    points = study(trained, tmp_path / "d", depths=(2, 7), state_seeds=2)["points"]
    dataset, root = trained
    recommender = SequentialRecommender.load(root / "lares", Catalogue.from_dataset(Dataset(dataset)))
    valid = Dataset(dataset).split("valid")
    for point, depth in zip(points, (2, 7), strict=True):
        recommender.encoder.depth, values = depth, []
        for seed in (0, 1):
            recommender.encoder.state_seed = seed
            ranks = rank_of_target(recommender.rank(valid.histories(), 10).item_ids, valid.targets)
            values.append(ndcg_at_k(ranks, 10).mean())
        assert point["ndcg"] == pytest.approx(np.mean(values))
        assert point["spread"] == pytest.approx(np.std(values, ddof=1))
        assert point["low"] <= point["ndcg"] <= point["high"]


def test_default_depths_span_the_models_mean(trained, tmp_path):
    body = study(trained, tmp_path / "d", state_seeds=1)
    assert [point["depth"] for point in body["points"]] == [1, 2, 4, 8, 12, 16]


def test_the_plot_shows_every_depth_within_its_frame(real_charts, trained, tmp_path):
    body = study(trained, tmp_path / "d", depths=(8, 1, 3), state_seeds=1)
    assert [point["depth"] for point in body["points"]] == [1, 3, 8]
    root = ElementTree.parse(tmp_path / "d/depth.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    drawn = {}
    for mark in root.iter(f"{name}use"):
        place = (float(mark.get("x")), float(mark.get("y")))
        drawn.setdefault(mark.get("{http://www.w3.org/1999/xlink}href"), []).append(place)
    # One mark for each point, another for the two ends of each interval.
    dots = next(places for places in drawn.values() if len(places) == 3)
    assert [x for x, _ in dots] == sorted(x for x, _ in dots)
    _, _, width, height = (float(part) for part in root.get("viewBox").split())
    assert all(0 < x < width and 0 < y < height for x, y in dots)
    highest = max(range(3), key=lambda index: body["points"][index]["ndcg"])
    assert dots[highest][1] == min(y for _, y in dots)
    assert {"1", "3", "8", "μ"} <= {text.text for text in root.iter(f"{name}text")}


def test_the_study_repeats_itself(trained, tmp_path):
    bodies = [study(trained, tmp_path / name, depths=(3,), state_seeds=2) for name in ("a", "b")]
    for body in bodies:
        body["points"][0].pop("latency_ms")
    assert bodies[0] == bodies[1]


def test_a_model_without_depth_is_refused(trained, tmp_path):
    dataset, root = trained
    with refused("model.other_kind"):
        depth_study(DepthConfig(), dataset=dataset, model=root / "sasrec", output=tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_depth_of_zero_is_refused():
    with refused("config.invalid", "lares_depth.depths", "0"):
        DepthConfig(depths=(0, 4))
