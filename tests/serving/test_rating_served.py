"""Rating models behind the same interface: history, history_ratings, target → rating, reasoning."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest

from latentrec.prompts.rating_format import RatingScale
from latentrec.serving.rating_service import RatingService
from latentrec.serving.request_schemas import BadRequest, RatingRow, parse_rows
from tests.fixtures.shop import decision
from tests.fixtures.tiny_rating_model import TITLES, make_rating_model


@pytest.fixture(scope="module")
def rating_model(tmp_path_factory):
    return make_rating_model(tmp_path_factory.mktemp("rating_model") / "model")


def test_registered_rating_model_answers_the_contracts_columns(tracked, rating_model, tmp_path):
    from latentrec.registry.registration import register_model
    from tests.fixtures.shop import write_evaluation

    gate = decision(metric="negative_mae", challenger=-0.6, floor=-0.7)
    evaluation = write_evaluation(tmp_path / "evaluation", rating_model, gate)
    register_model(model_dir=rating_model, evaluation_dir=evaluation, name="reczero")
    served = mlflow.pyfunc.load_model("models:/reczero@champion")
    frame = pd.DataFrame(
        {
            "history": [["B0", "B1"], []],
            "history_ratings": [[5.0, 2.0], []],
            "target": ["B3", "not in the shop"],
        }
    )
    answer = served.predict(frame)
    assert list(answer.columns) == ["rating", "reasoning", "model", "version"]
    assert set(answer["version"]) == {"1"}
    assert answer["rating"].tolist() == pytest.approx([3.5, 3.7])
    assert "No valid rating" in answer["reasoning"][0]
    assert "no item 'not in the shop'" in answer["reasoning"][1]


class Scripted:
    """A predictor that says what it was shown, and that it ran alone."""

    def __init__(self):
        self.shown, self.running, self.overlaps = [], 0, 0
        self.prompt = SimpleNamespace(scale=RatingScale(1, 5))

    def predict(self, examples, batch_size):
        self.running += 1
        self.overlaps += self.running > 1
        time.sleep(0.005)
        self.shown += examples
        self.running -= 1
        return [SimpleNamespace(rating=4.25, reasoning=f"on {e.title}", fault=None) for e in examples]


@pytest.fixture
def service(rating_model):
    loaded = RatingService.load(rating_model, rating_model / "items.parquet")
    loaded._predictor = Scripted()
    return loaded


def test_valid_answers_go_through_in_order(service):
    rows = [RatingRow(["B0"], history_ratings=[5.0], target=target) for target in ("B4", "nope", "B2")]
    answers = service.rate(rows)
    assert [answer.reasoning for answer in answers][::2] == [f"on {TITLES[4]}", f"on {TITLES[2]}"]
    assert [answer.rating for answer in answers] == [4.25, 5.0, 4.25]
    assert "no item 'nope'" in answers[1].reasoning


def test_the_model_sees_titles_ratings_and_means(service):
    service.rate(
        [
            RatingRow(
                ["B0", "gone", "gone too"],
                ["", "An old lamp", ""],
                history_ratings=[5.0, 1.0, 3.0],
                target="B3",
            )
        ]
    )
    (example,) = service._predictor.shown
    shown = [(entry.title, entry.rating) for entry in example.history]
    assert shown == [(TITLES[0], 5.0), ("An old lamp", 1.0)]
    assert (example.title, example.user_mean, example.item_mean) == (TITLES[3], 3.0, 3.0)
    assert np.isnan(example.rating)


def test_concurrent_callers_never_run_the_model_at_once(service):
    threads = [
        threading.Thread(target=service.rate, args=([RatingRow(["B0"], history_ratings=[5.0], target="B1")],))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert service._predictor.overlaps == 0
    assert len(service._predictor.shown) == 12


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"history": ["B0"], "history_ratings": [5.0]}, r"row 0\.target is None"),
        ({"history": ["B0"], "target": "B1"}, r"row 0\.history_ratings is None"),
        ({"history": ["B0"], "history_ratings": [5, 4], "target": "B1"}, "row 0: 2 history_ratings"),
        ({"history": ["B0"], "history_ratings": ["5"], "target": "B1"}, r"row 0\.history_ratings has '5'"),
        ({"history": ["B0"], "history_ratings": [9], "target": "B1"}, r"row 0\.history_ratings has 9"),
    ],
)
def test_malformed_rating_request_names_the_field(record, field):
    with pytest.raises(BadRequest, match=field):
        parse_rows([record], rating=True)
