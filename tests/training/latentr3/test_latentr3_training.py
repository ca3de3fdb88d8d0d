"""Both stages as users call them: they learn, resume bit for bit, stop cleanly, and say what they did."""

import pytest
import torch

from latentrec.data import Dataset
from latentrec.models import read_model
from latentrec.models.latentr3 import load_latentr3
from latentrec.training.latentr3.grpo import train_grpo
from latentrec.training.latentr3.grpo_config import LatentGRPOConfig
from latentrec.training.latentr3.sft import tokens_of
from latentrec.training.latentr3.sft_config import SFTConfig
from latentrec.training.latentr3.text_model import validation_figures
from latentrec.training.latentr3.trainable import choose_trainable
from tests.errors import refused
from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.latentr3_runs import (
    SFT,
    Recorder,
    grpo,
    same_weights,
    sft,
    weight_difference,
    weights,
)
from tests.training.latentr3.latentr3_runs import titles as train_titles


def test_stage_1_learns_and_describes_itself(stage_1, dataset):
    output, recorder = stage_1
    losses = recorder.series("train/loss")
    assert losses[max(losses)] < 0.85 * losses[min(losses)]
    info, manifest = read_model(output)
    assert (info.system, info.stage, info.parent) == ("latentr3", "sft", None)
    assert info.metrics["loss"] == min(recorder.series("valid/loss").values())
    assert {"loss", "hr_at_10", "ndcg_at_10"} <= set(info.metrics)
    assert "placeholder" in info.notes[0]
    assert manifest.inputs["dataset"] == info.dataset_fingerprint
    suffixes = {path.suffix for path in output.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".parquet", ".jinja", ".txt"}, suffixes


def test_stage_2_keeps_the_backbone_and_names_its_parent(stage_1, stage_2):
    before, after = weights(stage_1[0]), weights(stage_2[0])
    for name, tensor in before.items():
        if not name.startswith("ratt."):
            assert tensor.equal(after[name]), name
    info, _ = read_model(stage_2[0])
    assert info.stage == "grpo"
    assert info.parent == read_model(stage_1[0])[1].fingerprint


def test_stage_2_streams_what_it_promises(stage_2):
    recorder = stage_2[1]
    assert {
        "loss", "reward", "reward_std", "ratio", "clip_share", "grad_norm", "latent_rms", "noise_to_signal",
        "noise_beats_clean", "advantage_concentration", "cosine_with_sft", "cosine_with_reward",
        "tokens_per_second", "memory_peak_mb",
    } <= {name.removeprefix("train/") for _, metrics in recorder.metrics for name in metrics}  # fmt: skip
    assert sorted(recorder.series("valid/ndcg_at_10")) == [0, 4, 8]


def test_title_objective_trains_all_of_the_model_and_streams_its_figures(stage_1, titles):
    before, after = weights(stage_1[0]), weights(titles[0])
    assert [name for name in before if before[name].equal(after[name])] == []
    info, _ = read_model(titles[0])
    assert (info.stage, info.config["likelihood"]) == ("title-objective", "catalogue")
    assert (info.config["train_backbone"], info.config["metric_for_best_model"]) == (True, "objective")
    figures = titles[1].series("train/title_probability")
    assert len(figures) == 8
    assert all(0 < value < 1 for value in figures.values())
    for name in ("title_probability_std", "grad_norm", "tokens_per_second", "memory_peak_mb"):
        assert titles[1].series(f"train/{name}")
    assert sorted(titles[1].series("valid/objective")) == [0, 4, 8]


@pytest.mark.parametrize(
    "options",
    [{"objective": "arcsin"}, {"objective": "grpo", "estimator": "sampled", "num_generations": 16}],
    ids=str,
)
def test_title_objective_raises_what_it_maximizes_and_keeps_the_best_of_it(
    dataset, stage_1, options, tmp_path
):
    recorder = Recorder()
    options = {**options, "max_steps": 60, "load_best_model_at_end": True, "learning_rate": 1e-2}
    train_titles(dataset, stage_1[0], tmp_path / "model", recorder, **options)
    rewards = list(recorder.series("train/title_probability").values())
    assert sum(rewards[-5:]) > 1.2 * sum(rewards[:5])
    objective = recorder.series("valid/objective")
    assert read_model(tmp_path / "model")[0].metrics["objective"] == max(objective.values())


@pytest.mark.parametrize("estimator", ["gaussian", "target_likelihood"])
def test_stage_2_never_ends_worse_on_validation_than_it_began(dataset, stage_1, estimator, tmp_path):
    recorder = Recorder()
    grpo(
        dataset,
        stage_1[0],
        tmp_path / "model",
        recorder,
        load_best_model_at_end=True,
        estimator=estimator,
        learning_rate=0.1,
    )
    losses = recorder.series("valid/loss")
    metrics = read_model(tmp_path / "model")[0].metrics
    assert metrics["loss"] == min(losses.values())
    assert same_weights(stage_1[0], tmp_path / "model") == (losses[0] == min(losses.values()))


@pytest.mark.parametrize("n_latents", [0, 3])
def test_stage_1_trains_with_any_number_of_latents(dataset, n_latents, tmp_path):
    recorder = Recorder()
    sft(dataset, tmp_path / "model", recorder, reasoning_tokens=n_latents, num_train_epochs=1)
    losses = recorder.series("train/loss")
    assert losses[max(losses)] < losses[min(losses)]
    assert (tmp_path / "model" / "latent_ratt.safetensors").exists() == (n_latents > 0)


def test_paper_profile_and_gradient_checkpointing_train(dataset, tmp_path):
    recorder = Recorder()
    options = {"profile": "paper", "gradient_checkpointing": True, "num_train_epochs": 1, "packing": "exact"}
    sft(dataset, tmp_path / "model", recorder, **options)
    losses = recorder.series("train/loss")
    assert losses[max(losses)] < losses[min(losses)]
    config = read_model(tmp_path / "model")[0].config
    assert (config["bf16"], config["lr_scheduler_type"], config["patience"]) == (True, "linear", 1)


@pytest.mark.parametrize("packing", [pytest.param("none", marks=pytest.mark.slow), "exact"])
def test_accumulation_gives_what_one_large_batch_gives(dataset, packing, tmp_path):
    options = {"packing": packing, "num_train_epochs": 1, "evals_per_epoch": 1}
    sft(dataset, tmp_path / "whole", **options)
    sft(dataset, tmp_path / "parts", gradient_accumulation_steps=8, **options)
    largest, mean = weight_difference(tmp_path / "whole", tmp_path / "parts")
    assert largest < 5e-4, (largest, mean)
    assert mean < 2e-6, (largest, mean)


@pytest.mark.parametrize("estimator", ["target_likelihood", "gaussian", "exact"])
def test_accumulation_does_not_change_stage_2(dataset, stage_1, estimator, tmp_path):
    options = {"estimator": estimator, "max_steps": 4, "ranking_samples": 0, "load_best_model_at_end": False}
    train = train_titles if estimator == "exact" else grpo
    train(dataset, stage_1[0], tmp_path / "whole", **options)
    train(dataset, stage_1[0], tmp_path / "parts", gradient_accumulation_steps=8, **options)
    largest, mean = weight_difference(tmp_path / "whole", tmp_path / "parts")
    assert largest < 5e-5, (largest, mean)
    assert mean < 1e-7, (largest, mean)


def test_packing_takes_the_steps_of_separate_rows(dataset, tmp_path):
    """Batches differ in composition, so weights do; the loss after training is the same to a few percent."""
    losses = {}
    for packing in ("none", "exact"):
        recorder = Recorder()
        manifest = sft(dataset, tmp_path / packing, recorder, packing=packing)
        losses[packing] = min(recorder.series("valid/loss").values())
        assert manifest.counts["train_samples"] > 100
    assert losses["exact"] == pytest.approx(losses["none"], rel=0.1)


def test_lora_trains_adapters_and_saves_a_whole_backbone(dataset, stage_1, tmp_path):
    sft(
        dataset,
        tmp_path / "lora",
        backbone=str(stage_1[0] / "backbone"),
        train_backbone="lora",
        num_train_epochs=1,
    )
    before, after = weights(stage_1[0]), weights(tmp_path / "lora")
    changed = {name for name in after if not name.startswith("ratt.") and not after[name].equal(before[name])}
    assert after.keys() == before.keys()
    assert changed
    assert all("proj" in name for name in changed)


def test_lora_keeps_no_gradient_of_the_weights_that_it_adapts(stage_1):
    model = load_latentr3(stage_1[0]).model
    choose_trainable(SFTConfig(train_backbone="lora"), model)
    ids = torch.arange(2, 12)[None]
    model.backbone.model(input_ids=ids, labels=ids).loss.backward()
    named = dict(model.backbone.model.named_parameters())
    learning = {name for name, parameter in named.items() if parameter.grad is not None}
    assert learning
    assert all("lora_" in name for name in learning)
    assert {name for name in named if "lora_" in name} == learning


def test_only_the_last_layers_and_the_final_norm_learn(dataset, stage_1, tmp_path):
    backbone = str(stage_1[0] / "backbone")
    sft(dataset, tmp_path / "last", backbone=backbone, train_layers=1, num_train_epochs=1)
    before, after = weights(stage_1[0]), weights(tmp_path / "last")
    changed = {
        name for name in before if not name.startswith("ratt.") and not after[name].equal(before[name])
    }
    last = f"model.layers.{load_latentr3(stage_1[0]).model.backbone.config.num_hidden_layers - 1}."
    assert changed
    assert all(name.startswith(last) or name == "model.norm.weight" for name in changed)
    assert "model.norm.weight" in changed
    assert not after["ratt.q_proj.weight"].equal(before["ratt.q_proj.weight"])


def test_more_layers_than_there_are_are_refused_before_training(dataset, stage_1, tmp_path):
    with refused("config.bad_value", "sft.train_layers", "99"):
        sft(dataset, tmp_path / "o", backbone=str(stage_1[0] / "backbone"), train_layers=99)
    with refused("config.invalid", "sft.train_layers", "train_backbone", "'lora'"):
        SFTConfig(train_layers=1, train_backbone="lora")


def test_output_layer_of_the_used_tokens_trains_the_same_model_by_the_catalogues_likelihood(
    dataset, stage_1, tmp_path
):
    """Where a probability is taken among tokens of titles anyway, the others need no logits."""
    options = {"backbone": str(stage_1[0] / "backbone"), "likelihood": "catalogue", "num_train_epochs": 1}
    sft(dataset, tmp_path / "all", output_tokens="vocabulary", **options)
    sft(dataset, tmp_path / "used", output_tokens="used", **options)
    assert weight_difference(tmp_path / "all", tmp_path / "used")[0] < 1e-4


def test_frozen_backbone_stays_as_it_was(dataset, stage_1, tmp_path):
    sft(
        dataset,
        tmp_path / "frozen",
        backbone=str(stage_1[0] / "backbone"),
        train_backbone="frozen",
        num_train_epochs=1,
    )
    before, after = weights(stage_1[0]), weights(tmp_path / "frozen")
    assert all(after[name].equal(before[name]) for name in before if not name.startswith("ratt."))
    assert not after["ratt.q_proj.weight"].equal(before["ratt.q_proj.weight"])


@pytest.mark.parametrize(
    "options",
    [
        {"reward": "ndcg", "advantage": "group"},
        {"reward": "exact_match", "advantage": "batch"},
        {"reward": "clipped_perplexity"},
        {
            "estimator": "target_likelihood",
            "num_iterations": 2,
            "beta": 0.1,
            "gradient_accumulation_steps": 2,
        },
        {"estimator": "gaussian", "num_iterations": 2, "beta": 0.1, "gradient_accumulation_steps": 2},
        {"train_backbone": True},
        {"train_backbone": True, "estimator": "target_likelihood", "beta": 0.1},
        {"profile": "paper", "warmup_steps": 1, "learning_rate": 1e-4},
        {"bf16": True},
        {"bf16": True, "estimator": "target_likelihood", "gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_every_option_of_grpo_trains(dataset, stage_1, options, tmp_path):
    recorder = Recorder()
    grpo(dataset, stage_1[0], tmp_path / "model", recorder, max_steps=4, **options)
    assert len(recorder.series("train/loss")) == 4
    if options.get("num_iterations"):
        assert any(ratio != 1 for ratio in recorder.series("train/ratio").values())
        assert max(recorder.series("train/kl").values()) > 0


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "power", "exponent": 1.0, "gradient_checkpointing": True},
        {"objective": "likelihood", "train_backbone": False, "gradient_accumulation_steps": 2},
        {"objective": "arcsin", "likelihood": "vocabulary", "bf16": True},
        {"objective": "grpo", "num_generations": 64},
        {"objective": "grpo", "estimator": "sampled", "loss_type": "bnpo", "num_generations": 4},
        {"objective": "grpo", "estimator": "sampled", "loss_type": "dr_grpo", "scale_rewards": False},
    ],
    ids=str,
)
def test_every_title_objective_trains(dataset, stage_1, options, tmp_path):
    recorder = Recorder()
    train_titles(dataset, stage_1[0], tmp_path / "model", recorder, max_steps=4, **options)
    assert len(recorder.series("train/loss")) == 4
    assert not same_weights(stage_1[0], tmp_path / "model")


def test_model_of_another_dataset_is_refused(stage_1, tmp_path):
    other = write_dataset(tmp_path / "other", n_users=20, seed=5)
    with refused("model.other_dataset"):
        grpo(other, stage_1[0], tmp_path / "model")


def test_model_without_latents_can_learn_by_titles_only(dataset, tmp_path):
    sft(dataset, tmp_path / "plain", reasoning_tokens=0, num_train_epochs=1, max_train_samples=60)
    with refused("model.no_latent_ratt"):
        grpo(dataset, tmp_path / "plain", tmp_path / "model")
    with refused("model.no_latent_ratt"):
        train_titles(dataset, tmp_path / "plain", tmp_path / "model", train_backbone=False)
    train_titles(dataset, tmp_path / "plain", tmp_path / "model", max_steps=2)
    assert load_latentr3(tmp_path / "model").model.n_latents == 0
    assert not same_weights(tmp_path / "plain", tmp_path / "model")


def test_stages_take_the_part_of_the_training_samples_that_they_are_told(dataset, stage_1, tmp_path):
    data, prompt = Dataset(dataset), load_latentr3(stage_1[0]).prompt
    whole = len(data.split("train"))
    early, _ = tokens_of(SFTConfig(backbone="micro", train_to=0.75), data, prompt)
    assert len(early) == round(0.75 * whole)
    late = whole - round(0.98 * whole)
    config = LatentGRPOConfig(batch_size=256, train_from=0.98)
    with refused("config.conflict", "batch_size", "256", f" {late} "):
        train_grpo(config, dataset=dataset, model=stage_1[0], output=tmp_path / "m")


def test_learning_rate_is_chosen_on_validation_and_last_weights_are_kept(dataset, stage_1, tmp_path):
    options = {"profile": "paper", "estimator": "gaussian", "reward": "nll", "metric_for_best_model": "loss"}
    rates = (1e-5, 3e-3, 0.3)
    losses = {}
    options |= {"warmup_steps": 1}
    for rate in rates:
        recorder = Recorder()
        grpo(dataset, stage_1[0], tmp_path / f"{rate}", recorder, learning_rate=rate, **options)
        losses[rate] = recorder.series("valid/loss")[8]
    best = min(losses, key=losses.get)
    grpo(dataset, stage_1[0], tmp_path / "swept", learning_rates=rates, **options)
    info, _ = read_model(tmp_path / "swept")
    assert info.config["learning_rate"] == best
    assert info.metrics["loss"] == pytest.approx(losses[best])
    assert same_weights(tmp_path / f"{best}", tmp_path / "swept")
    assert f"learning rate {best:g} was chosen on validation" in info.notes
    assert len([note for note in info.notes if note.startswith("learning rate")]) == 4
    assert losses[0.3] > losses[best]


@pytest.mark.parametrize(
    "options",
    [
        {"latent": "pause_token"},
        {"ablation.latent_width": 8},
        {"ablation.answer_reads": "latents", "reasoning_tokens": 2},
        {"ablation.prompt_key_dropout": 0.5},
        {"ablation.latent_loss": "variance"},
        {"ablation.latent_loss": "contrastive", "packing": "none"},
        {"latent": "pause_token", "train_backbone": "frozen", "ablation.answer_reads": "latents"},
    ],
    ids=str,
)
def test_every_option_of_the_latent_trains_and_loads_as_it_was(dataset, options, tmp_path):
    recorder = Recorder()
    sft(dataset, tmp_path / "model", recorder, num_train_epochs=1, **options)
    losses = recorder.series("train/loss")
    assert losses[max(losses)] < losses[min(losses)]
    share = recorder.series("valid/latent_user_share")
    assert all(0 <= value <= 1 for value in share.values())
    if options.get("latent") == "pause_token":
        assert max(share.values()) < 1e-9
    loaded = load_latentr3(tmp_path / "model")
    shape = loaded.info.architecture
    for name in ("answer_reads", "latent_width"):
        assert options.get(f"ablation.{name}", shape[name]) == shape[name]
    data = Dataset(dataset)
    _, valid = tokens_of(SFTConfig(**{**SFT, **options}), data, loaded.prompt)
    again = validation_figures(loaded.model, valid)["loss"]
    assert again == pytest.approx(loaded.info.metrics["loss"], abs=1e-5)


def test_a_constant_latent_is_said_in_the_log_and_in_the_model(dataset, tmp_path, caplog):
    sft(dataset, tmp_path / "model", num_train_epochs=1, learning_rate=1e-5)
    info, _ = read_model(tmp_path / "model")
    collapsed = [note for note in info.notes if "nearly a constant" in note]
    assert bool(collapsed) == (info.metrics["latent_user_share"] < 0.01)
    assert bool(collapsed) == ("nearly a constant" in caplog.text)
