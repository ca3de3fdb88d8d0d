"""Two evaluations side by side, through the command."""

import re

import pytest

from latentrec.cli import main
from latentrec.evaluation import EvaluateConfig, evaluate
from latentrec.evaluation.compare import EvaluatedModel, compare_runs
from tests.errors import refused
from tests.evaluation.shop import write_dataset


@pytest.fixture
def evaluation(dataset, make_model, tmp_path):
    def make(name, skill, data=dataset):
        config = EvaluateConfig(n_resamples=100, cost_samples=0, example_users=0)
        models = {"m": make_model(f"model-{name}", skill=skill)}
        evaluate(config, dataset=data, models=models, output=tmp_path / name)
        return EvaluatedModel(tmp_path / name)

    return make


def test_the_better_of_two_runs_is_told_both_ways(evaluation):
    weak, strong = evaluation("weak", 0.2), evaluation("strong", 0.8)
    found = compare_runs([weak], [strong], n_resamples=300)
    assert (found.n_samples, found.n_users, found.same_dataset) == (240, 120, True)
    assert {row.verdict for row in found.metrics} == {"better"}
    assert {row.verdict for row in compare_runs([strong], [weak], n_resamples=300).metrics} == {"worse"}
    assert {row.verdict for row in compare_runs([weak], [weak], n_resamples=300).metrics} == {"cannot tell"}


def test_seeds_are_resampled_with_the_users(evaluation):
    base, good, bad = evaluation("base", 0.5), evaluation("good", 0.9), evaluation("bad", 0.3)
    one = compare_runs([base], [good], n_resamples=300).metrics[0]
    several = compare_runs([base], [good, bad], n_resamples=300)
    row = several.metrics[0]
    assert one.verdict == "better"
    assert row.verdict == "cannot tell"
    assert several.n_runs == (1, 2)
    assert row.high - row.low > one.high - one.low


def test_only_samples_that_both_have_are_compared(evaluation, tmp_path):
    other = write_dataset(tmp_path / "other", seed=1)
    found = compare_runs([evaluation("a", 0.5)], [evaluation("b", 0.5, other)], n_resamples=100)
    assert 0 < found.n_samples < 240
    assert not found.same_dataset


def test_command_prints_the_table(evaluation, capsys):
    first, second = evaluation("weak", 0.2), evaluation("strong", 0.8)
    main(["compare", str(first.directory), f"{second.directory}@m", "--n-resamples", "200"])
    shown = capsys.readouterr().out
    assert re.search(r"NDCG@10 +0\.\d{4} +0\.\d{4} +\+0\.\d{4} +\[\+0\.\d{4}, \+0\.\d{4}\] +better", shown)
    assert "240 samples of 120 users" in shown


@pytest.mark.parametrize("place", ["nowhere", "../.."])
def test_what_is_no_run_is_refused(evaluation, refused_command, place):
    first = evaluation("a", 0.5)
    refused_command(["compare", str(first.directory), place], "evaluation.not_found", place)


def test_a_model_that_is_not_there_is_refused(evaluation):
    first = evaluation("a", 0.5)
    with refused("evaluation.unknown_model", "x"):
        compare_runs([first], [EvaluatedModel(first.directory, "x")])
