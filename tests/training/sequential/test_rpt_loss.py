"""RPT's estimators against formulas written out and against the gradient of the expected reward."""

import math

import pytest
import torch

from latentrec.training.common.policy_gradient import group_advantage, kl_estimate
from latentrec.training.sequential.item_softmax import AllScores
from latentrec.training.sequential.rpt_loss import (
    gaussian_loss,
    likelihood_loss,
    rank_of,
    reward_of,
    smoothed_reward,
)


def test_rank_counts_the_items_that_score_higher():
    scores = torch.tensor([[0.1, 0.9, 0.5], [3.0, 3.0, 1.0]])
    assert rank_of(scores, torch.tensor([2, 0])).tolist() == [2, 1]


def test_rewards_are_recall_and_discounted_gain():
    ranks = torch.tensor([1, 3, 10, 11])
    assert reward_of(ranks, "recall", 10).tolist() == [1, 1, 1, 0]
    expected = [1.0, 1 / math.log2(4), 1 / math.log2(11), 0.0]
    assert reward_of(ranks, "ndcg", 10).tolist() == pytest.approx(expected)


def test_advantage_is_centered_and_scaled_within_the_group():
    rewards = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    std = math.sqrt(4 * 0.25 / 3)
    expected = 0.5 / (std + 1e-4)
    advantage = group_advantage(rewards, dim=0)
    assert advantage[:, 0].tolist() == pytest.approx([expected, -expected, -expected, expected])
    assert advantage[:, 1].tolist() == [0, 0, 0, 0]


def test_published_gradient_equals_its_formula():
    """d loss / d lp = −(A + β (exp(ref − lp) − 1)) / (T·P)."""
    log_p = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[-1.2, -1.5], [-0.9, -3.3]], dtype=torch.float64)
    advantage, beta = torch.tensor([0.8, -1.1], dtype=torch.float64), 0.3
    likelihood_loss(log_p, reference, advantage, beta).mean().backward()
    for t in range(2):
        for p in range(2):
            ratio = math.exp(float(reference[t, p] - log_p[t, p]))
            expected = -(float(advantage[p]) + beta * (ratio - 1)) / 4
            assert log_p.grad[t, p].item() == pytest.approx(expected, rel=1e-9)


def test_drift_is_zero_at_the_reference_and_positive_elsewhere():
    log_p = torch.linspace(-3, 0, 7)
    penalty = kl_estimate(log_p, torch.full((7,), -1.5))
    assert penalty[3].item() == pytest.approx(0, abs=1e-6)
    assert (penalty[[0, 1, 2, 4, 5, 6]] > 0).all()


def expected_reward(state, items, target, std, noise):
    scores = (state + std * noise) @ items.T
    return reward_of(rank_of(scores, torch.full((len(noise),), target)), "recall", 2).mean()


@pytest.fixture
def toy():
    generator = torch.Generator().manual_seed(3)
    items = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    state = torch.randn(3, generator=generator, dtype=torch.float64)
    ranks = rank_of(state[None] @ items.T, torch.zeros(1, dtype=torch.long))
    assert ranks.item() > 2  # the clean state misses: only the noise is ever rewarded
    return items, state


def test_score_function_points_along_the_gradient_of_the_expected_reward(toy):
    items, state = toy
    std, generator = 0.8, torch.Generator().manual_seed(0)
    noise = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    numeric = torch.zeros(3, dtype=torch.float64)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 0.05
        up, down = (expected_reward(state + sign * step, items, 0, std, noise) for sign in (1, -1))
        numeric[axis] = (up - down) / 0.1
    states = state[None].clone().requires_grad_()
    scores = (state + std * noise) @ items.T
    rewards = reward_of(rank_of(scores, torch.zeros(len(noise), dtype=torch.long)), "recall", 2).double()
    gaussian_loss(states, noise[:, None], rewards[:, None], std).mean().backward()
    torch.testing.assert_close(-states.grad[0], numeric, rtol=0.1, atol=0.02)


def smoothed(scores, targets, kind, k, temperature):
    return smoothed_reward(*AllScores(scores).best_others(targets, k), kind, temperature)


@pytest.mark.parametrize("kind", ["recall", "ndcg"])
def test_smoothed_reward_is_the_expectation_under_logistic_noise(kind):
    torch.manual_seed(0)
    scores, target, scale = torch.randn(1, 6, dtype=torch.float64), torch.tensor([2]), 0.5
    uniform = torch.rand(400_000, dtype=torch.float64)
    noised = scores.repeat(len(uniform), 1)
    noised[:, 2] += scale * torch.log(uniform / (1 - uniform))
    sampled = reward_of(rank_of(noised, target.expand(len(uniform))), kind, 3).double().mean()
    assert smoothed(scores, target, kind, 3, scale).item() == pytest.approx(sampled.item(), abs=5e-3)


def test_smoothed_reward_with_little_noise_is_the_reward():
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])
    for target in range(5):
        for kind in ("recall", "ndcg"):
            soft = smoothed(scores, torch.tensor([target]), kind, 3, 1e-3)
            hard = reward_of(torch.tensor([target + 1]), kind, 3)
            assert soft.item() == pytest.approx(hard.item(), abs=1e-6)


def test_list_longer_than_the_catalogue_rewards_everything():
    scores = torch.randn(2, 4)
    assert smoothed(scores, torch.tensor([0, 3]), "ndcg", 50, 1e-4).min() > 0.4
