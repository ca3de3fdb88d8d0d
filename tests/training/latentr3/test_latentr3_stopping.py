"""A training that stops before its last step: no better for long, worse on validation, or no number."""

import pytest

from latentrec.models import read_model
from latentrec.training.common.divergence import TrainingDiverged
from tests.training.latentr3.latentr3_runs import Recorder, grpo, same_weights, sft


def scripted(monkeypatch, module, name, values):
    """Let the validation figure ``name`` take these values, one evaluation after the other."""
    series = iter(values)
    monkeypatch.setattr(module, "ranking_measure", lambda *_: lambda: {name: next(series)})


@pytest.mark.parametrize(
    ("figure", "series"),
    [("loss", [3.0, 2.0, 2.5, 2.4, 1.0]), ("ndcg_at_10", [0.1, 0.3, 0.2, 0.25, 0.9])],
)
def test_early_stopping_keeps_the_best(dataset, tmp_path, monkeypatch, figure, series):
    from latentrec.training.latentr3 import sft as module

    recorder = Recorder()
    scripted(monkeypatch, module, figure, series)
    root = str(tmp_path / "checkpoints")
    options = {"patience": 2, "metric_for_best_model": figure}
    manifest = sft(dataset, tmp_path / "model", recorder, root, **options)
    steps = sorted(recorder.series("valid/loss"))
    assert len(steps) == 4
    assert manifest.counts == manifest.counts | {"steps": steps[3], "best_step": steps[1]}
    info, _ = read_model(tmp_path / "model")
    assert info.metrics[figure] == series[1]
    assert any(f"stopped early at step {steps[3]:,.0f}: {figure}" in note for note in info.notes)


def test_collapse_guard_stops_and_restores(dataset, stage_1, tmp_path, monkeypatch):
    from latentrec.training.latentr3 import stage_2 as module

    recorder = Recorder()
    scripted(monkeypatch, module, "hr_at_10", [0.4, 0.3, 0.19, 0.4])
    options = {"eval_steps": 1, "load_best_model_at_end": True, "learning_rate": 0.3, "warmup_steps": 0}
    grpo(dataset, stage_1[0], tmp_path / "model", recorder, **options)
    assert sorted(recorder.series("valid/hr_at_10")) == [0, 1, 2]
    info, _ = read_model(tmp_path / "model")
    assert any("collapse guard: validation hr_at_10 fell from 0.4000 to 0.1900" in n for n in info.notes)
    losses = recorder.series("valid/loss")
    assert info.metrics["loss"] == min(losses.values())
    if losses[0] == min(losses.values()):
        assert same_weights(stage_1[0], tmp_path / "model")


def test_loss_that_is_no_number_stops_the_run(dataset, stage_1, tmp_path, monkeypatch):
    from latentrec.training.latentr3 import sft_trainer as module

    original, calls = module.answer_pass, []

    def broken(model, batch, **options):
        calls.append(1)
        log_probs, latents = original(model, batch, **options)
        return log_probs * (float("nan") if len(calls) == 3 else 1.0), latents

    monkeypatch.setattr(module, "answer_pass", broken)
    with pytest.raises(TrainingDiverged, match="step 3"):
        sft(dataset, tmp_path / "model", root=str(tmp_path / "checkpoints"))
    assert not (tmp_path / "model").exists()
