"""The evaluation step on a rating dataset, through the entry point that every user takes."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from latentrec.data import Dataset
from latentrec.evaluation import Champion, EvaluateConfig, evaluate
from latentrec.evaluation.report.console_table import results_table
from latentrec.models import read_model
from latentrec.models.rating.placeholder_model import PLACEHOLDER_NOTE
from latentrec.models.rating.text_predictor import RatingPrediction, TextRatingPredictor
from latentrec.prompts.rating_examples import RatingTask
from latentrec.prompts.rating_format import RatingAnswer, parse_answer, render_answer
from tests.errors import refused

CONFIG = EvaluateConfig(n_resamples=200, example_users=3)
BASELINES = [
    "global mean",
    "global median",
    "user mean",
    "item mean",
    "user + item bias",
    "matrix factorization",
]


@pytest.fixture
def answers(monkeypatch):
    """Decide what every model answers: ``answers["text"](example)``; broken answers unless a test says so."""
    say = {"text": lambda example: "no idea"}

    def predict(self, examples, **_):
        found = []
        for example in examples:
            text = say["text"](example)
            parsed = parse_answer(text)
            good = isinstance(parsed, RatingAnswer)
            rating = parsed.rating if good else float("nan")
            found.append(RatingPrediction(rating, text, text, None if good else parsed.kind, 50, 10, 0.01))
        return found

    monkeypatch.setattr(TextRatingPredictor, "predict", predict)
    return say


def answer(rating):
    return render_answer("u", "i", "m", rating)


def run(rating_dataset, base, output, config=CONFIG, **settings):
    evaluate(config, dataset=rating_dataset, models={"reczero": base}, output=output, **settings)
    read = {
        name: json.loads((output / f"{name}.json").read_text())
        for name in ("metrics", "comparison", "confusion", "gate")
    }
    return read


def test_rating_dataset_is_judged_with_every_baseline(rating_dataset, base, answers, tmp_path):
    found = run(rating_dataset, base, tmp_path / "e")
    assert found["comparison"]["models"] == [*BASELINES, "reczero"]
    for entry in found["metrics"].values():
        assert entry["mae"]["low"] <= entry["mae"]["value"] <= entry["mae"]["high"]
        assert set(entry) >= {
            "mae", "rmse", "unparsable_rate", "accuracy", "tokens_per_prediction", "seconds_per_prediction"
        }  # fmt: skip
    assert found["metrics"]["reczero"]["tokens_per_prediction"]["value"] == 60
    for name in (*BASELINES, "reczero"):
        rows = pq.read_table(tmp_path / "e" / f"predictions_{re.sub('[^A-Za-z0-9_.+-]', '_', name)}.parquet")
        mae = found["metrics"][name]["mae"]["value"]
        assert rows["absolute_error"].to_numpy().mean() == pytest.approx(mae, abs=1e-6)


def test_model_that_never_answers_has_the_user_means_error_and_is_refused(
    rating_dataset, base, answers, tmp_path
):
    """Bit for bit: with float32 here and float64 there such a model once became champion by 1.7e-8."""
    found = run(rating_dataset, base, tmp_path / "e")
    metrics = found["metrics"]
    assert metrics["reczero"]["unparsable_rate"]["value"] == 1.0
    assert metrics["reczero"]["accuracy"]["value"] == 0.0
    assert metrics["reczero"]["mae"]["value"] == metrics["user mean"]["mae"]["value"]
    assert (found["gate"]["promote"], found["gate"]["code"]) == (False, "unreadable")
    assert found["gate"]["readable_share"] == 0.0


def test_model_that_says_the_median_to_everyone_is_not_promoted(rating_dataset, base, answers, tmp_path):
    task = RatingTask(Dataset(rating_dataset))
    median = float(np.median(task.ratings_of(task.train_rows())[2]))
    answers["text"] = lambda example: answer(median)
    found = run(rating_dataset, base, tmp_path / "e")
    assert found["metrics"]["reczero"]["unparsable_rate"]["value"] == 0.0
    assert not found["gate"]["promote"]
    assert found["gate"]["code"] == "not_above_trivial_baseline"


@pytest.mark.parametrize(("broken", "code"), [(1, "passed"), (2, "unreadable")])
def test_share_of_readable_answers_decides(rating_dataset, base, answers, tmp_path, broken, code):
    """Of 24 answers 23 are 95.8 %, 22 are 91.7 %."""
    asked = []

    def text(example):
        asked.append(example)
        return "no idea" if len(asked) <= broken else answer(example.rating)

    answers["text"] = text
    found = run(rating_dataset, base, tmp_path / "e")
    assert found["gate"]["code"] == code


def test_model_below_the_floors_error_is_promoted_and_a_worse_one_refused(
    rating_dataset, base, answers, tmp_path
):
    answers["text"] = lambda example: answer(example.rating)
    found = run(rating_dataset, base, tmp_path / "right")
    assert found["metrics"]["reczero"]["mae"]["value"] == 0.0
    assert found["gate"]["promote"]
    assert found["gate"]["metric"] == "neg_mae"
    answers["text"] = lambda example: answer(6.0 - example.rating)
    assert not run(rating_dataset, base, tmp_path / "wrong")["gate"]["promote"]


def test_champion_is_judged_on_the_same_ratings(rating_dataset, base, answers, tmp_path):
    """Challenger and champion answer alike, so the challenger is not better and does not replace it."""
    answers["text"] = lambda example: answer(example.rating)
    shutil.copytree(base, tmp_path / "champion")
    champion = Champion(directory=tmp_path / "champion", label="reczero v1", version="1")
    found = run(rating_dataset, base, tmp_path / "e", champion=champion)
    assert found["gate"]["champion"] == found["gate"]["challenger"] == 0.0
    assert found["gate"]["difference"] == 0.0
    assert not found["gate"]["promote"]
    assert found["gate"]["expected_champion"] == "1"
    assert {row["model"] for row in found["comparison"]["against_champion"]} == {*BASELINES, "reczero"}


def test_confusion_counts_every_answer_once(rating_dataset, base, answers, tmp_path):
    answers["text"] = lambda example: answer(3.0) if example.user_id % 2 else "broken"
    found = run(rating_dataset, base, tmp_path / "e")
    table = np.array(found["confusion"]["reczero"])
    assert table[:, 2].sum() == table[:, 5].sum() == 12
    assert table.sum() == 24


def test_report_calls_a_placeholder_a_placeholder(real_charts, rating_dataset, base, answers, tmp_path):
    run(rating_dataset, base, tmp_path / "e")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "e" / name).read_text()
        assert PLACEHOLDER_NOTE in text
        assert "user mean" in text
    html = (tmp_path / "e" / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', html)


def test_no_name_in_the_markdown_acts_as_emphasis(rating_dataset, base, answers, tmp_path):
    evaluate(CONFIG, dataset=rating_dataset, models={"rec_zero_2": base}, output=tmp_path / "e")
    text = (tmp_path / "e" / "report.md").read_text()
    assert "rec\\_zero\\_2" in text
    assert not re.search(r"(?<!\\)_", text)


def test_report_says_once_what_two_models_have_in_common_and_nothing_of_what_baselines_lack(
    rating_dataset, base, answers, tmp_path
):
    evaluate(CONFIG, dataset=rating_dataset, models={"start": base, "reczero": base}, output=tmp_path / "e")
    for name in ("report.html", "report.md"):
        page = (tmp_path / "e" / name).read_text()
        assert page.count("start and reczero") == 1
        assert "neg_mae" not in page
    rows = [line for line in page.splitlines() if line.startswith(("| user mean (floor)", "| start |"))]
    cells = [[cell.strip() for cell in row.split("|")[3:-1]] for row in rows[:2]]
    assert [cells[0][index] for index in (1, 3, 4)] == ["–", "–", "–"]
    assert [cells[1][index] for index in (1, 3)] == ["100.0%", "60.0"]


def test_report_says_whether_the_floor_is_beaten_and_if_not_what_the_model_did(
    rating_dataset, base, answers, tmp_path
):
    def reading(name, text):
        answers["text"] = text
        found = run(rating_dataset, base, tmp_path / name)
        row = next(r for r in found["comparison"]["against_baseline"] if r["model"] == "reczero")
        page = (tmp_path / name / "report.md").read_text()
        assert (
            f"{row['difference']:+.4f} stars, 95 % interval [{row['low']:+.4f}, {row['high']:+.4f}]" in page
        )
        return page, row["low"], row["high"]

    page, _, high = reading("right", lambda example: answer(example.rating))
    assert high < 0
    assert "beats the user mean" in page
    page, low, _ = reading("constant", lambda example: answer(1.0))
    assert low > 0
    assert "It gives 1 to every sample" in page
    page, low, high = reading("silent", lambda example: "no idea")
    assert low <= 0 <= high
    assert "None of its answers" in page


def test_report_states_the_validity_from_which_training_started(
    rating_dataset, base, answers, tmp_path, monkeypatch
):
    info, manifest = read_model(base)
    measured = {"start_format_valid": 0.137, "end_format_valid": 0.962}
    trained = replace(info, stage="rating_grpo", metrics=measured)
    monkeypatch.setattr(
        "latentrec.evaluation.rating.evaluate_ratings.read_model", lambda directory: (trained, manifest)
    )
    run(rating_dataset, base, tmp_path / "e")
    said = "Reinforcement learning of reczero starts at 13.7% valid answers and ends at 96.2%"
    assert said in (tmp_path / "e" / "report.md").read_text()
    assert said in (tmp_path / "e" / "report.html").read_text()


def test_answers_cannot_act_as_markup_in_the_report(real_charts, rating_dataset, base, answers, tmp_path):
    answers["text"] = lambda example: "<script>alert(1)</script>"
    run(rating_dataset, base, tmp_path / "e")
    assert "<script" not in (tmp_path / "e" / "report.html").read_text()


def test_results_are_printed_as_a_table_of_errors(rating_dataset, base, answers, tmp_path):
    run(rating_dataset, base, tmp_path / "e")
    table = results_table(tmp_path / "e")
    assert "MAE" in table.splitlines()[0]
    assert len(table.splitlines()) == 1 + len(BASELINES) + 1


def test_baseline_name_and_unknown_challenger_are_refused(rating_dataset, base, answers, tmp_path):
    with refused("evaluation.unknown_model", "challenger", "other"):
        run(rating_dataset, base, tmp_path / "e", CONFIG.replace(challenger="other"))
    assert not (tmp_path / "e").exists()


def test_judging_a_subset_of_users_is_seeded(rating_dataset, base, answers, tmp_path):
    config = CONFIG.replace(max_users=7)
    found = [run(rating_dataset, base, tmp_path / name, config)["metrics"] for name in ("a", "b")]
    assert all(found[0][name]["mae"] == found[1][name]["mae"] for name in (*BASELINES, "reczero"))
    rows = pq.read_table(tmp_path / "a" / "predictions_reczero.parquet")
    assert len(set(rows["user_id"].to_pylist())) == 7


def test_real_generation_runs_through_the_same_entry_point(rating_dataset, base, tmp_path):
    found = run(rating_dataset, base, tmp_path / "e")
    assert found["metrics"]["reczero"]["seconds_per_prediction"]["value"] > 0
    assert found["metrics"]["reczero"]["tokens_per_prediction"]["value"] > 20
