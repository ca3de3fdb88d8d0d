"""Objectives over titles on a real model: every title counted one by one, titles really drawn, packed and
plain."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from latentrec.catalog import TokenTrie
from latentrec.data import Dataset
from latentrec.decoding.trie_tensors import TrieTensors
from latentrec.models.latentr3 import IGNORED, load_latentr3
from latentrec.training.common.policy_gradient import group_advantage
from latentrec.training.latentr3.collator import NextItemTokens, packed_batch, plain_batch
from latentrec.training.latentr3.likelihood import CatalogueTokens
from latentrec.training.latentr3.sampled_titles import SampledTitles, sequence_loss
from latentrec.training.latentr3.text_model import Throughput
from latentrec.training.latentr3.title_objective import TitleObjectiveTrainer
from latentrec.training.latentr3.title_objective_config import TitleObjectiveConfig
from tests.decoding.tiny import EOS, tiny_model
from tests.errors import refused
from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.latentr3_runs import sft
from tests.training.latentr3.test_likelihood import scored

TITLES = [[5, 6, EOS], [5, 6, 7, 8, EOS], [5, EOS], [9, 3, EOS], [EOS], [9, 4, 4, 4, EOS]]
PROMPTS = torch.tensor([[3, 9, 4, 7], [7, 4, 9, 3], [8, 8, 2, 5]])
TARGETS = [1, 4, 3]


def engineless(allowed_tokens=None, **options):
    """What the trainer's own functions read, without an engine around them."""
    one_process = SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x)
    trainer = SimpleNamespace(
        _throughput=Throughput(),
        _objective_config=TitleObjectiveConfig(**options),
        _sampler=None,
        _probabilities=[],
        _prompt_key_dropout=0.0,
        _allowed_tokens=allowed_tokens or TrieTensors(TokenTrie.build(TITLES)).choices,
        accelerator=one_process,
    )
    trainer._answer_pass = lambda model, inputs: TitleObjectiveTrainer._answer_pass(trainer, model, inputs)
    return trainer


def loss_of(model, batch, count, **options):
    return TitleObjectiveTrainer.compute_loss(engineless(**options), model, batch, num_items_in_batch=count)


def gradient(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def catalogue_model(n_latents):
    model = tiny_model(n_latents=n_latents)
    labels = torch.full((3, 1, 5), IGNORED)
    for row, target in enumerate(TARGETS):
        labels[row, 0, : len(TITLES[target])] = torch.tensor(TITLES[target])
    return model, {"input_ids": PROMPTS, "attention_mask": torch.ones_like(PROMPTS), "labels": labels}


@pytest.mark.parametrize("objective", ["arcsin", "power"])
@pytest.mark.parametrize("n_latents", [0, 1, 2])
def test_gradient_is_that_of_the_reward_over_the_whole_catalogue(n_latents, objective):
    model, batch = catalogue_model(n_latents)
    ours = gradient(model, loss_of(model, batch, 3, objective=objective, exponent=1.0))
    log_policy = scored(model, PROMPTS.tolist(), TITLES)  # (prompts, titles)
    policy = log_policy.detach().exp()
    rewards = torch.nn.functional.one_hot(torch.tensor(TARGETS), len(TITLES))
    advantages = rewards - (policy * rewards).sum(dim=1, keepdim=True)
    if objective == "arcsin":  # divided by the standard deviation
        advantages = advantages / (policy * advantages**2).sum(dim=1, keepdim=True).sqrt()
    counted = gradient(model, -(policy * advantages * log_policy).sum() / 3)
    assert float((ours - counted).norm() / counted.norm()) < 1e-4


def sampler_of(**options):
    sampler = object.__new__(SampledTitles)
    sampler._config = TitleObjectiveConfig(estimator="sampled", objective="grpo", **options)
    sampler._trie, sampler._tensors, sampler._seen = TokenTrie.build(TITLES), None, []
    return sampler


@pytest.mark.parametrize("n_latents", [0, 1, 2])
def test_titles_are_drawn_as_often_as_their_probability_says(n_latents):
    model, _ = catalogue_model(n_latents)
    torch.manual_seed(0)
    drawn = sampler_of(num_generations=4000).draw(model, PROMPTS, torch.ones_like(PROMPTS))
    expected = scored(model, PROMPTS.tolist(), TITLES).detach().exp()
    width = drawn.shape[-1]
    for row in range(3):
        for index, title in enumerate(TITLES):
            padded = torch.tensor(title + [IGNORED] * (width - len(title)))
            share = float((drawn[row] == padded).all(dim=-1).float().mean())
            assert share == pytest.approx(float(expected[row, index]), abs=0.03)


def test_drawn_groups_have_the_gradient_of_the_closed_form_in_the_mean():
    """dr_grpo, so that no length weighs; the sample standard deviation of G titles is √(G / (G − 1))
    larger."""
    model, batch = catalogue_model(1)
    size, repeats = 4, 1500
    many = {name: tensor.repeat(repeats, *[1] * (tensor.dim() - 1)) for name, tensor in batch.items()}
    torch.manual_seed(0)
    sampler = sampler_of(num_generations=size, loss_type="dr_grpo")
    loss, log_p = sampler.loss(model, many, 3 * repeats)
    drawn = gradient(model, loss) * 5 * (size / (size - 1)) ** 0.5  # 5: tokens of the longest title
    exact = gradient(model, loss_of(model, batch, 3, objective="grpo", num_generations=size))
    assert float(torch.nn.functional.cosine_similarity(drawn, exact, dim=0)) > 0.98
    assert float(drawn.norm() / exact.norm()) == pytest.approx(1, abs=0.1)
    true = scored(model, PROMPTS.tolist(), TITLES)[range(3), TARGETS]
    torch.testing.assert_close(log_p[:3], true, atol=1e-5, rtol=1e-5)
    figures = sampler.figures()
    assert figures["reward"] == pytest.approx(float(true.exp().mean()), abs=0.02)
    assert 0 < figures["groups_with_signal"] < 1
    assert sampler.figures() == {}


def test_losses_are_those_of_trl():
    log_probs = torch.tensor([[[-1.0, -2.0, 0.0], [-0.5, 0.0, 0.0]]]).requires_grad_()
    counted = torch.tensor([[[True, True, False], [True, False, False]]])
    advantages = group_advantage(torch.tensor([[1.0, 0.0]]), dim=1)
    assert torch.allclose(advantages, torch.tensor([[0.5, -0.5]]) / (0.5**0.5 + 1e-4))
    a, b = advantages[0].tolist()
    expected = {
        "grpo": [[-a / 2 / 2, -a / 2 / 2, 0], [-b / 2, 0, 0]],
        "bnpo": [[-a / 3, -a / 3, 0], [-b / 3, 0, 0]],
        "dr_grpo": [[-a / 2 / 7, -a / 2 / 7, 0], [-b / 2 / 7, 0, 0]],
    }
    for loss_type, gradients in expected.items():
        log_probs.grad = None
        sequence_loss(log_probs, advantages, counted, loss_type, total_prompts=1, longest=7).backward()
        assert torch.allclose(log_probs.grad[0], torch.tensor(gradients), atol=1e-6), loss_type


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"estimator": "sampled"}, ("title_objective.estimator", "'sampled'", "objective", "'grpo'")),
        (
            {"estimator": "sampled", "objective": "grpo", "likelihood": "vocabulary"},
            ("title_objective.", "'sampled'", "likelihood"),
        ),
        ({"objective": "power", "exponent": 1.5}, ("title_objective.exponent", "1.5")),
        ({"num_generations": 1}, ("title_objective.num_generations", "1")),
        (
            {"metric_for_best_model": "ndcg_at_10", "ranking_samples": 0},
            ("title_objective.metric_for_best_model", "ranking_samples is 0"),
        ),
        ({"objective": "reinforce"}, ("title_objective.objective", "'reinforce'")),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, named):
    with refused("config.invalid", *named):
        TitleObjectiveConfig(**options)


def test_batch_that_processes_cannot_share_is_refused():
    with refused("config.conflict", "3"):
        TitleObjectiveConfig(batch_size=32).check_world(3)


def test_packed_prefixes_give_the_gradient_of_separate_rows(tmp_path):
    dataset = write_dataset(tmp_path / "dataset", n_users=12, n_items=24, length=(4, 9))
    sft(dataset, tmp_path / "model", num_train_epochs=1, ranking_samples=0)
    loaded, data = load_latentr3(tmp_path / "model"), Dataset(dataset)
    model = loaded.model
    allowed_tokens = CatalogueTokens(data, loaded.prompt)
    tokens = NextItemTokens(data.split("train"), data.titles, loaded.prompt)
    rows = [row for row in tokens.packed_rows() if len(row.samples) > 1][:4]
    samples = [sample for row in rows for sample in row.samples]
    assert len({len(row.samples) for row in rows}) > 1  # some branches only fill the batch
    packed = loss_of(model, packed_batch(tokens, rows), len(samples), allowed_tokens=allowed_tokens)
    first = gradient(model, packed)
    plain = loss_of(model, plain_batch(tokens, samples), len(samples), allowed_tokens=allowed_tokens)
    torch.testing.assert_close(packed, plain, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(first, gradient(model, plain), atol=1e-6, rtol=1e-4)
    figures = []
    for batch in (packed_batch(tokens, rows), plain_batch(tokens, samples)):
        trainer = engineless(allowed_tokens)
        trainer._items_of = partial(TitleObjectiveTrainer._items_of, trainer)
        counted = TitleObjectiveTrainer.count_items(trainer, [batch], torch.device("cpu"))
        assert counted == len(samples)
        TitleObjectiveTrainer.compute_loss(trainer, model, batch, num_items_in_batch=counted)
        figures.append(TitleObjectiveTrainer.figures(trainer)["title_probability"])
    assert 0 < figures[0] < 0.5
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)
