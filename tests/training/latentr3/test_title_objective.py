"""The title policy on a real model: its gradient against every title counted one by one, packed and plain."""

from types import SimpleNamespace

import pytest
import torch

from latentrec.catalog import TokenTrie
from latentrec.data import Dataset
from latentrec.decoding.trie_tensors import TrieTensors
from latentrec.models.latentr3 import IGNORED, load_latentr3
from latentrec.training.latentr3.collator import NextItemTokens, packed_batch, plain_batch
from latentrec.training.latentr3.likelihood import CatalogueTokens
from latentrec.training.latentr3.text_model import Throughput
from latentrec.training.latentr3.title_objective import TitleObjectiveTrainer
from tests.decoding.tiny import EOS, tiny_model
from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.latentr3_runs import sft
from tests.training.latentr3.test_likelihood import scored

TITLES = [[5, 6, EOS], [5, 6, 7, 8, EOS], [5, EOS], [9, 3, EOS], [EOS], [9, 4, 4, 4, EOS]]
PROMPTS = torch.tensor([[3, 9, 4, 7], [7, 4, 9, 3], [8, 8, 2, 5]])


def engineless(advantage="group"):
    """What the trainer's own functions read, without an engine around them."""
    one_process = SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x)
    return SimpleNamespace(
        _throughput=Throughput(), _advantage=advantage, _probabilities=[], accelerator=one_process
    )


def loss_of(model, batch, count, advantage="group"):
    return TitleObjectiveTrainer.compute_loss(engineless(advantage), model, batch, num_items_in_batch=count)


def gradient(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("advantage", ["group", "none"])
@pytest.mark.parametrize("n_latents", [0, 1, 2])
def test_gradient_is_grpo_s_over_the_whole_catalogue(n_latents, advantage):
    model = tiny_model(n_latents=n_latents)
    model.choices_of = TrieTensors(TokenTrie.build(TITLES)).choices
    targets = [1, 4, 3]
    labels = torch.full((3, 1, 5), IGNORED)
    for row, target in enumerate(targets):
        labels[row, 0, : len(TITLES[target])] = torch.tensor(TITLES[target])
    batch = {"input_ids": PROMPTS, "attention_mask": torch.ones_like(PROMPTS), "labels": labels}
    ours = gradient(model, loss_of(model, batch, 3, advantage))

    log_policy = scored(model, PROMPTS.tolist(), TITLES)  # (prompts, titles)
    policy = log_policy.detach().exp()
    rewards = torch.nn.functional.one_hot(torch.tensor(targets), len(TITLES))
    mean = (policy * rewards).sum(dim=1, keepdim=True)
    advantages = rewards - mean
    if advantage == "group":
        advantages = advantages / (policy * advantages**2).sum(dim=1, keepdim=True).sqrt()
    counted = gradient(model, -(policy * advantages * log_policy).sum() / 3)
    assert float((ours - counted).norm() / counted.norm()) < 1e-4


def test_packed_prefixes_give_the_gradient_of_separate_rows(tmp_path):
    dataset = write_dataset(tmp_path / "dataset", n_users=12, n_items=24, length=(4, 9))
    sft(dataset, tmp_path / "model", epochs=1, ranking_samples=0)
    loaded, data = load_latentr3(tmp_path / "model"), Dataset(dataset)
    model = loaded.model
    model.choices_of = CatalogueTokens(data, loaded.prompt)
    tokens = NextItemTokens(data.split("train"), data.titles, loaded.prompt)
    rows = [row for row in tokens.packed_rows() if len(row.samples) > 1][:4]
    samples = [sample for row in rows for sample in row.samples]
    assert len({len(row.samples) for row in rows}) > 1  # some branches only fill the batch
    packed = loss_of(model, packed_batch(tokens, rows), len(samples))
    first = gradient(model, packed)
    plain = loss_of(model, plain_batch(tokens, samples), len(samples))
    torch.testing.assert_close(packed, plain, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(first, gradient(model, plain), atol=1e-6, rtol=1e-4)
    figures = []
    for batch in (packed_batch(tokens, rows), plain_batch(tokens, samples)):
        trainer = engineless()
        counted = TitleObjectiveTrainer._get_num_items_in_batch(trainer, [batch], torch.device("cpu"))
        assert counted == len(samples)
        TitleObjectiveTrainer.compute_loss(trainer, model, batch, num_items_in_batch=counted)
        figures.append(TitleObjectiveTrainer.figures(trainer)["reward"])
    assert 0 < figures[0] < 0.5
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)
