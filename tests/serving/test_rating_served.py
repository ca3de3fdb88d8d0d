"""Rating models behind the same door: history, history_ratings, target → rating, reasoning."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentrec.models import ModelInfo
from latentrec.models.rating.placeholder_model import PlaceholderShape, build_model, build_tokenizer
from latentrec.models.rating.text_predictor import architecture_entry, save_language_model
from latentrec.prompts.rating_format import RatingScale
from latentrec.prompts.rating_prompt import RatingPromptSettings
from latentrec.serving.rating_service import RatingService
from latentrec.serving.request_schemas import BadRequest, RequestRow, parse_rows
from latentrec.storage import ArtifactWriter
from tests.fixtures.shop import decision

TITLES = [f"number {item} of the shop" for item in range(6)]


def items_table():
    return pa.table(
        {
            "item_id": pa.array(range(6), pa.int32()),
            "item_key": [f"B{item}" for item in range(6)],
            "title": TITLES,
            "title_id": pa.array(range(6), pa.int32()),
            "train_count": pa.array([6, 5, 4, 3, 2, 1], pa.int32()),
            "train_mean_rating": pa.array([4.5, 4.0, None, 3.0, 2.0, 1.0], pa.float32()),
        }
    )


@pytest.fixture(scope="module")
def rating_model(tmp_path_factory):
    output = tmp_path_factory.mktemp("rating_model") / "model"
    tokenizer = build_tokenizer([*TITLES, "Analyze the user, then rate from 1 to 5."] * 4, vocabulary=400)
    model = build_model(tokenizer, PlaceholderShape(hidden_size=32, layers=1, heads=2), seed=0)
    architecture = architecture_entry(RatingPromptSettings(), RatingScale(1, 5), 8, 3.7)
    with ArtifactWriter(output, "model", {"seed": 0}) as writer:
        save_language_model(model, tokenizer, writer.path)
        pq.write_table(items_table(), writer.path / "items.parquet")
        ModelInfo(
            system="reczero",
            stage="rating_grpo",
            config={},
            architecture=architecture,
            metrics={},
            dataset_fingerprint="f" * 64,
            parent=None,
            train_end=0,
        ).write(writer.path)
    return output


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
    rows = [RequestRow(["B0"], None, [5.0], target) for target in ("B4", "nope", "B2")]
    answers = service.rate(rows)
    assert [answer.reasoning for answer in answers][::2] == [f"on {TITLES[4]}", f"on {TITLES[2]}"]
    assert [answer.rating for answer in answers] == [4.25, 5.0, 4.25]
    assert "no item 'nope'" in answers[1].reasoning


def test_the_model_sees_titles_ratings_and_means(service):
    service.rate([RequestRow(["B0", "gone", "gone too"], ["", "An old lamp", ""], [5.0, 1.0, 3.0], "B3")])
    (example,) = service._predictor.shown
    shown = [(entry.title, entry.rating) for entry in example.history]
    assert shown == [(TITLES[0], 5.0), ("An old lamp", 1.0)]
    assert (example.title, example.user_mean, example.item_mean) == (TITLES[3], 3.0, 3.0)
    assert np.isnan(example.rating)


def test_concurrent_callers_never_run_the_model_at_once(service):
    threads = [
        threading.Thread(target=service.rate, args=([RequestRow(["B0"], None, [5.0], "B1")],))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert service._predictor.overlaps == 0
    assert len(service._predictor.shown) == 12


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"history": ["B0"], "history_ratings": [5.0]}, "row 0.target is None, expected an item key"),
        ({"history": ["B0"], "target": "B1"}, "history_ratings is None, expected a list of numbers"),
        ({"history": ["B0"], "history_ratings": [5, 4], "target": "B1"}, "2 history_ratings for 1 items"),
        ({"history": ["B0"], "history_ratings": ["5"], "target": "B1"}, "has '5', expected numbers"),
        ({"history": ["B0"], "history_ratings": [9], "target": "B1"}, "has 9, expected numbers from 0 to 5"),
    ],
)
def test_malformed_rating_request_names_the_field(record, reason):
    with pytest.raises(BadRequest, match=reason):
        parse_rows([record], rating=True)
