"""Rows of a micro-batch in groups: the gradient of the whole, for the memory of a part."""

import pytest
import torch

from latentrec.data import Dataset
from latentrec.models.latentr3 import IGNORED, LatentR3Model, load_backbone
from latentrec.prompts import NextItemPrompt, title_line
from latentrec.training.common import resumable_trainer
from latentrec.training.common.batching import BLANK
from latentrec.training.latentr3 import sft_trainer
from latentrec.training.latentr3.batch_splitting import forward_budget, split_batch, tokens_that_fit
from latentrec.training.latentr3.collator import NextItemTokens, answer_log_probs
from latentrec.training.latentr3.sft_config import SFTConfig
from latentrec.training.latentr3.sft_trainer import RowCollator
from latentrec.training.latentr3.title_objective_config import TitleObjectiveConfig
from tests.errors import refused
from tests.training.latentr3.latentr3_runs import Recorder, sft, weight_difference
from tests.training.latentr3.latentr3_runs import titles as train_titles

BUDGET = 300


def backbone_and_tokens(dataset, preset="micro"):
    data = Dataset(dataset)
    texts = [title_line(title) for title in data.titles]
    backbone, tokenizer = load_backbone(preset, texts=texts, seed=0)
    return backbone, NextItemTokens(data.split("train"), data.titles, NextItemPrompt(tokenizer))


def tokens_in(batch):
    real = batch["segments"] >= -1 if "segments" in batch else batch["attention_mask"] != 0
    return int(real.sum() + (batch["labels"] != IGNORED).sum())


@pytest.mark.parametrize("packing", ["exact", "none"])
@pytest.mark.parametrize("n_latents", [0, 2])
def test_groups_hold_every_row_once_and_give_the_same_gradient(dataset, packing, n_latents):
    backbone, tokens = backbone_and_tokens(dataset)
    rows = (tokens.packed_rows() if packing == "exact" else tokens.single_rows())[:20]
    batch = RowCollator(tokens, rows)([*range(0, 20, 2), BLANK, *range(1, 20, 2)])
    groups = split_batch(batch, BUDGET)
    assert len(groups) > 3
    assert all(tokens_in(group) <= BUDGET or len(group["labels"]) == 1 for group in groups)
    assert sum(tokens_in(group) for group in groups) == tokens_in(batch)
    assert sum(len(group["labels"]) for group in groups) == 21

    torch.manual_seed(0)
    model = LatentR3Model(backbone, n_latents=n_latents)
    counted = (batch["labels"] != IGNORED).sum()

    def gradient(parts):
        model.zero_grad()
        loss = 0.0
        for part in parts:
            share = -answer_log_probs(model, part).sum() / counted
            share.backward()
            loss += float(share.detach())
        return loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    (whole, whole_gradient), (split, split_gradient) = gradient([batch]), gradient(groups)
    assert split == pytest.approx(whole, abs=1e-6)
    assert (split_gradient - whole_gradient).norm() < 1e-5 * whole_gradient.norm()


def test_a_batch_within_the_budget_is_passed_on_as_it_is(dataset):
    _, tokens = backbone_and_tokens(dataset)
    batch = RowCollator(tokens, tokens.single_rows())([0, 1, 2])
    for budget in (0, tokens_in(batch)):
        (only,) = split_batch(batch, budget)
        assert only is batch
    assert len(split_batch(batch, 1)) == 3


@pytest.fixture
def groups_seen(monkeypatch):
    """Budget → most groups that a micro-batch passed in, in trainings of this test."""
    seen = {}

    def counting(batch, most_tokens):
        groups = split_batch(batch, most_tokens)
        seen[most_tokens] = max(seen.get(most_tokens, 0), len(groups))
        return groups

    monkeypatch.setattr(sft_trainer, "split_batch", counting)
    return seen


@pytest.mark.parametrize("packing", ["exact", "none"])
def test_stage_1_ends_with_the_same_weights(dataset, tmp_path, packing, groups_seen):
    runs = {}
    for name, budget in (("whole", 0), ("split", BUDGET)):
        runs[name] = Recorder()
        options = {"max_tokens_per_forward": budget, "packing": packing, "num_train_epochs": 1}
        sft(dataset, tmp_path / name, runs[name], **options)
    assert weight_difference(tmp_path / "whole", tmp_path / "split")[0] < 2e-4
    whole, split = (runs[name].series("train/loss") for name in ("whole", "split"))
    assert split == pytest.approx(whole, abs=1e-5)
    assert len(whole) > 3
    assert groups_seen[0] == 1
    assert groups_seen[BUDGET] > 2


def test_freed_memory_is_given_back_after_each_step(dataset, tmp_path, monkeypatch):
    trimmed = []
    monkeypatch.setattr(resumable_trainer, "trim_heap", lambda: trimmed.append(True))
    recorder = Recorder()
    sft(dataset, tmp_path / "model", recorder, num_train_epochs=1)
    assert len(trimmed) == len(recorder.series("train/loss")) > 3


def test_the_title_objective_ends_with_the_same_weights(dataset, stage_1, tmp_path, groups_seen):
    for name, budget in (("whole", 0), ("split", 150)):
        train_titles(dataset, stage_1[0], tmp_path / name, max_tokens_per_forward=budget, max_steps=4)
    largest, mean = weight_difference(tmp_path / "whole", tmp_path / "split")
    assert largest < 1e-4
    assert mean < 1e-6
    assert groups_seen[150] > 1


@pytest.mark.parametrize("bf16", [False, True])
def test_the_budget_is_what_autograd_keeps(dataset, bf16):
    """What is saved for backward, in bytes a token, is what the budget was derived from."""
    backbone, tokens = backbone_and_tokens(dataset, "small")
    model = LatentR3Model(backbone)
    batch = RowCollator(tokens, tokens.single_rows())(list(range(16)))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)  # kept, or its address would be used again
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        answer_log_probs(model, batch).sum()
    matrices = (
        sum(p.numel() * 2 for p in model.parameters() if p.ndim > 1) if bf16 else 0
    )  # autocast's copies
    per_token = (sum(size for size, _ in saved.values()) - matrices) / tokens_in(batch)
    fits = tokens_that_fit(model.backbone.config, bf16=bf16, activation_bytes=10**9)
    assert 0.6 < per_token * fits / 1e9 < 1.4


def test_unset_it_limits_a_large_model_on_a_cpu_and_nothing_else(monkeypatch):
    smollm2 = type("Config", (), {"num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536})
    fp32, bf16 = (forward_budget(SFTConfig(bf16=bf16), smollm2) for bf16 in (False, True))
    assert 800 < fp32 < bf16 < 1500
    tiny = type("Config", (), {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 384})
    assert forward_budget(TitleObjectiveConfig(), tiny) > 30_000
    assert forward_budget(SFTConfig(max_tokens_per_forward=77), smollm2) == 77
    assert forward_budget(SFTConfig(sharding="fsdp"), smollm2) == 0
    assert forward_budget(SFTConfig(ablation={"latent_loss": "contrastive"}), smollm2) == 0
    assert forward_budget(TitleObjectiveConfig(objective="grpo", estimator="sampled"), smollm2) == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert forward_budget(SFTConfig(), smollm2) == 0


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (SFTConfig, {"sharding": "fsdp"}),
        (SFTConfig, {"ablation": {"latent_loss": "variance"}}),
        (SFTConfig, {"ablation": {"prompt_key_dropout": 0.5}}),
        (TitleObjectiveConfig, {"sharding": "fsdp"}),
        (TitleObjectiveConfig, {"estimator": "sampled", "objective": "grpo"}),
    ],
)
def test_a_budget_that_would_change_the_result_is_refused(config, options):
    with refused("config.invalid", "max_tokens_per_forward is 500"):
        config(max_tokens_per_forward=500, **options)
