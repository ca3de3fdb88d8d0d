"""LARES: the recurrence, its injections, its initial states, its step counts."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from latentrec.catalog import Catalogue
from latentrec.models.sequential import LARES, STEP_SAMPLERS, SequentialRecommender, sample_steps
from latentrec.models.sequential.encoder import at_last_position
from latentrec.models.sequential.initial_state import noise_of_histories, sample_truncated_normal


def make(**extra) -> LARES:
    torch.manual_seed(0)
    return LARES(n_items=15, hidden_size=8, inner_dim=16, max_length=6, **extra).eval()


@pytest.mark.parametrize("injection", ["add", "concat", "linear"])
@torch.no_grad()
def test_k_steps_equal_k_applications_written_out(injection):
    encoder = make(injection=injection)
    if injection == "linear":
        encoder.inject.weight.copy_(torch.randn(8))
    items = torch.randint(15, (2, 5))
    hidden, initial = encoder.prelude(items), torch.randn(2, 5, 8)
    thought = initial
    for _ in range(3):
        if injection == "add":
            mixed = (thought + hidden) / 2
        elif injection == "concat":
            merge = encoder.inject.merge
            mixed = torch.cat([thought, hidden], -1) @ merge.weight.T + merge.bias
        else:
            share = 1 / (1 + torch.exp(-encoder.inject.weight))
            mixed = share * thought + (1 - share) * hidden
        norm = encoder.inject_norm
        thought = (mixed - mixed.mean(-1, keepdim=True)) / mixed.std(-1, correction=0, keepdim=True)
        thought = thought * norm.weight + norm.bias
        for layer in encoder.core_block:
            thought = layer(thought)
    trajectory = encoder.trajectory(hidden, 3, initial)
    assert len(trajectory) == 3
    torch.testing.assert_close(trajectory[-1], thought, rtol=1e-4, atol=1e-5)


def test_parameters_do_not_grow_with_the_number_of_steps():
    def size(steps):
        return sum(parameter.numel() for parameter in make(mean_steps=steps).parameters())

    assert size(1) == size(4) == size(16)


@torch.no_grad()
def test_deeper_thought_continues_the_shallower_one():
    encoder = make()
    items, lengths = torch.randint(15, (3, 6)), torch.tensor([6, 4, 1])
    thoughts = encoder.trajectory(encoder.prelude(items), 5, encoder.initial_of(items))
    for depth in (1, 3, 5):
        encoder.depth = depth
        torch.testing.assert_close(
            encoder.last_states(items, lengths), at_last_position(thoughts[depth - 1], lengths)
        )


def test_scoring_repeats_itself_and_follows_the_seed():
    catalogue = Catalogue.from_items([f"k{i}" for i in range(15)], ["t"] * 15, np.ones(15, np.int64))
    encoder = make()
    recommender = SequentialRecommender(encoder, catalogue)
    histories = [[1, 2, 3], [4, 5], [6]]
    first, again = recommender.rank(histories, 15), recommender.rank(histories, 15)
    assert np.array_equal(first.scores, again.scores)
    alone = recommender.rank([histories[1]], 15)
    np.testing.assert_allclose(alone.scores[0], first.scores[1], rtol=1e-5)
    encoder.state_seed = 1
    assert not np.array_equal(first.scores, recommender.rank(histories, 15).scores)


def test_initial_noise_is_a_truncated_normal():
    histories = torch.from_numpy(np.random.default_rng(0).integers(0, 10**9, size=(4000, 3)))
    torch.manual_seed(0)
    for noise in (
        noise_of_histories(histories, 16, seed=3),
        sample_truncated_normal((4000, 3, 16), torch.device("cpu")),
    ):
        assert noise.abs().max() <= 3
        assert noise.mean().item() == pytest.approx(0, abs=0.01)
        # Variance of N(0, 1) restricted to ±3: 1 − 2·3·φ(3)/(Φ(3) − Φ(−3)).
        density = math.exp(-4.5) / math.sqrt(2 * math.pi)
        expected = 1 - 6 * density / math.erf(3 / math.sqrt(2))
        assert noise.var().item() == pytest.approx(expected, abs=0.02)
        flat = noise.flatten().sort().values
        assert flat[len(flat) // 4].item() == pytest.approx(-0.672, abs=0.02)


def test_initial_noise_differs_between_histories_positions_and_channels():
    noise = noise_of_histories(torch.tensor([[1, 2], [2, 2], [1, 3]]), 32, seed=0)
    assert torch.equal(noise[0, 0], noise[2, 0])  # the same prefix
    rows = [noise[0, 0], noise[0, 1], noise[1, 0], noise[1, 1], noise[2, 1]]
    correlation = torch.corrcoef(torch.stack(rows)) - torch.eye(5)
    assert correlation.abs().max() < 0.7
    assert len(noise.flatten().unique()) > 0.8 * noise.numel()


@pytest.mark.parametrize("kind", STEP_SAMPLERS)
def test_step_counts_have_their_mean_and_bounds(kind):
    torch.manual_seed(0)
    drawn = np.array([sample_steps(kind, 4) for _ in range(4000)])
    assert drawn.min() >= 1
    assert drawn.max() <= {"poisson_lognormal": 12, "uniform_to_double": 8}.get(kind, 7)
    # E[Poisson(rate)] + 1 with E[rate] = 4; the bound of 12 takes a little off. The mean of 1 … 2μ is μ + ½.
    mean = {"poisson_lognormal": 4.9, "uniform_to_double": 4.5}.get(kind, 4)
    assert drawn.mean() == pytest.approx(mean, abs=0.15)


def test_no_norm_or_weight_of_the_core_is_duplicated_per_step():
    encoder = make()
    steps = [module for name, module in encoder.named_modules() if isinstance(module, nn.Sequential)]
    assert steps == [encoder.pre_block, encoder.core_block]
