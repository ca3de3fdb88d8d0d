"""The gradient-direction study and the trials of stage 2, on a tiny model."""

import json

import pytest

from benchmarks.estimator import groups, page, trials
from benchmarks.estimator.directions import ESTIMATORS, study
from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.latentr3_runs import sft


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory):
    place = tmp_path_factory.mktemp("stage_1")
    dataset = write_dataset(place / "dataset", n_users=60, n_items=24, length=(4, 9))
    sft(dataset, place / "model", num_train_epochs=4)
    return dataset, place / "model"


def test_score_function_points_up_the_reward(stage_1):
    rows = study(*stage_1, name="m", sigmas=(0.1,), prompts=64, draws=2, seed=1)
    by_name = {row["estimator"]: row for row in rows}
    assert set(by_name) == set(ESTIMATORS)
    ours = by_name["score function, nll, own"]
    assert ours["with_reward"] > 0.1
    assert ours["slope"] > 0.05
    assert all(-1 <= row["with_sft"] <= 1 and row["slope"] < 1.5 for row in rows)


def test_trial_is_recorded_once_and_shown(stage_1, tmp_path, monkeypatch):
    dataset, model = stage_1
    monkeypatch.setattr(
        trials,
        "COMMON",
        trials.COMMON | {"max_steps": 4, "eval_steps": 2, "logging_steps": 1, "batch_size": 64},
    )
    monkeypatch.setattr(page, "FIGURES", tmp_path / "docs/estimator")
    monkeypatch.setattr(page, "PAGE", tmp_path / "docs/estimator.md")
    place = tmp_path / "docs/estimator/trials"
    where = {"dataset": dataset, "model": model, "label": "m-s1", "output": place, "seed": 1}
    assert trials.run_trial("score function", **where) is True
    assert trials.run_trial("score function", **where) is False
    (place / "m-s1-start.json").write_text(json.dumps({"on": "m-s1", "ndcg_at_10": 0.25}))
    (tmp_path / "docs/estimator.md").write_text(f"words\n{page.BEGIN}\nold\n{page.END}\nmore words\n")
    text = page.write_page().read_text()
    assert "| m-s1 | score function | 4 |" in text
    assert "0.2500 →" in text
    assert "old" not in text
    assert text.startswith("words")
    assert text.endswith("more words\n")
    assert (tmp_path / "docs/estimator/trials-m-s1.svg").is_file()


def test_sampled_groups_tend_to_the_expectation_and_the_share_of_those_that_tell_is_exact(
    stage_1, monkeypatch
):
    monkeypatch.setattr(groups, "GROUPS", (2, 20_000))
    few, many = groups.study(*stage_1, name="m", prompts=12, draws=3)
    assert (few["prompts"], few["titles"]) == (12, 24)
    assert few["informative"] < 0.5
    assert many["informative"] > 0.99
    assert few["cosine"] < many["cosine"]
    assert many["cosine"] > 0.98
