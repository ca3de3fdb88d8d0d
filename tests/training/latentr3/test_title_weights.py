"""Weights of the objectives over titles: against groups of titles counted one by one, sampled, and
derivatives."""

import itertools
import math

import pytest
import torch

from latentrec.training.latentr3.title_weights import gradient_weight, objective_value

LOGITS = torch.tensor([0.3, -1.2, 2.0, 0.1, -0.4], dtype=torch.float64)
ALL = [
    ("arcsin", {}),
    ("power", {"exponent": 0.25}),
    ("power", {"exponent": 1.0}),
    ("grpo", {"num_generations": 8}),
    ("grpo", {"num_generations": 64}),
    ("likelihood", {}),
]


def group_gradient(counts, target):
    """Gradient on the logits of a categorical policy of GRPO's group in which each title stands so often."""
    rewards = torch.nn.functional.one_hot(torch.tensor(target), len(counts)).double()
    mean = (counts * rewards).sum() / counts.sum()
    deviation = ((counts * (rewards - mean) ** 2).sum() / counts.sum()).sqrt()
    if deviation == 0:
        return torch.zeros_like(LOGITS)
    logits = LOGITS.clone().requires_grad_()
    advantage = (rewards - mean) / deviation
    (counts / counts.sum() * advantage * torch.log_softmax(logits, 0)).sum().backward()
    return logits.grad


def weighted_gradient(target, objective, **options):
    logits = LOGITS.clone().requires_grad_()
    log_p = torch.log_softmax(logits, 0)[target]
    (gradient_weight(log_p.detach(), objective, **options) * log_p).backward()
    return logits.grad


@pytest.mark.parametrize("target", range(5))
def test_arcsin_is_grpo_with_every_title_counted(target):
    """Counting each title as often as the policy draws it is the limit of ever larger groups."""
    expected = group_gradient(torch.softmax(LOGITS, 0), target)
    assert torch.allclose(weighted_gradient(target, "arcsin"), expected, atol=1e-9)


@pytest.mark.parametrize(("target", "size"), [(1, 2), (2, 3), (3, 4)])
def test_grpo_weight_is_the_expectation_over_every_group_that_can_be_drawn(target, size):
    policy = torch.softmax(LOGITS, 0)
    expected = torch.zeros_like(LOGITS)
    for group in itertools.product(range(5), repeat=size):
        counts = torch.bincount(torch.tensor(group), minlength=5).double()
        expected += policy[list(group)].prod() * group_gradient(counts, target)
    ours = weighted_gradient(target, "grpo", num_generations=size)
    assert torch.allclose(ours, expected, atol=1e-9)


def test_a_large_group_of_sampled_titles_tends_to_arcsin():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(torch.softmax(LOGITS, 0), 400_000, replacement=True, generator=generator)
    sampled = group_gradient(torch.bincount(drawn, minlength=5).double(), 3)
    assert torch.allclose(weighted_gradient(3, "arcsin"), sampled, atol=5e-3)


def test_figures_of_the_design_for_a_rare_title():
    """Of p = .001: limit .0316, G = 8 .0026, about p √(G − 1)."""
    log_p = torch.tensor(0.001, dtype=torch.float64).log()
    assert float(gradient_weight(log_p, "arcsin")) == pytest.approx(0.0316, abs=5e-5)
    assert float(gradient_weight(log_p, "grpo", num_generations=8)) == pytest.approx(0.0026, abs=5e-5)
    assert float(gradient_weight(log_p, "grpo", num_generations=8)) == pytest.approx(
        0.001 * math.sqrt(7), rel=0.02
    )
    assert float(gradient_weight(log_p, "grpo", num_generations=100_000)) == pytest.approx(0.0316, abs=3e-4)


def test_power_is_the_gradient_of_generalized_cross_entropy():
    log_p = torch.linspace(-9, -0.01, 20, dtype=torch.float64).requires_grad_()
    q = 0.7
    ((1 - torch.exp(q * log_p)) / q).sum().backward()
    assert torch.allclose(-log_p.grad, gradient_weight(log_p.detach(), "power", exponent=q))


@pytest.mark.parametrize(("objective", "options"), ALL)
def test_weights_climb_the_objective(objective, options):
    log_p = torch.linspace(-9, -1e-3, 40, dtype=torch.float64).requires_grad_()
    objective_value(log_p, objective, **options).sum().backward()
    weights = gradient_weight(log_p.detach(), objective, **options)
    ratio = weights / log_p.grad
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-6)


@pytest.mark.parametrize(("objective", "options"), ALL[:-1])
def test_weights_and_values_stay_finite_at_both_ends(objective, options):
    ends = torch.tensor([-200.0, -1e-9, 0.0])
    assert torch.isfinite(gradient_weight(ends, objective, **options)).all()
    reached = objective_value(ends, objective, **options)
    assert 0 <= reached[0] < 1e-15
    assert float(reached[2]) == pytest.approx(1, abs=1e-6)


def test_smaller_groups_care_less_for_rare_titles():
    log_p = torch.tensor([1e-3, 0.3]).log()
    relative = [
        float(weights[0] / weights[1])
        for weights in (
            gradient_weight(log_p, "likelihood"),
            gradient_weight(log_p, "power", exponent=0.25),
            gradient_weight(log_p, "arcsin"),
            gradient_weight(log_p, "grpo", num_generations=64),
            gradient_weight(log_p, "grpo", num_generations=8),
            gradient_weight(log_p, "power", exponent=1.0),
        )
    ]
    assert relative == sorted(relative, reverse=True)
