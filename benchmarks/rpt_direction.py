"""Does an estimator's gradient point uphill in the reward? Measured, not argued.

The expected reward ``J(θ) = E[reward]`` over initial states, dropout and step counts is estimated by common
random numbers, so that a small step of the weights shows: for each estimator the weights take a step along
its (negative) gradient and one against it, and half the difference of J is its slope. Cosines between the
estimators' gradients, and with the gradient of the cross-entropy, say what each is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentrec.models import read_model
from latentrec.models.sequential import LARES, at_last_position, pad_right, sample_steps
from latentrec.training.sequential.rows import Rows, collate, epoch_batches
from latentrec.training.sequential.rpt import load_policy, training_rows
from latentrec.training.sequential.rpt_config import ESTIMATORS, RPTConfig
from latentrec.training.sequential.rpt_loss import rank_of, reward_of
from latentrec.training.sequential.rpt_objective import RPTLoss
from latentrec.training.sequential.state import reseed
from latentrec.training.sequential.train import SequentialData

Rewards = Callable[[], np.ndarray]
"""Reward of each sample under the weights as they are, averaged over the same draws every time."""


@dataclass(frozen=True)
class Slope:
    """What one estimator's direction does to the expected reward.

    Attributes:
        name: estimator, or ``cross_entropy``.
        step: length of the step, as a share of the norm of the weights.
        train, train_error: change of J on the training samples for a step along the direction, and its
            standard error over samples.
        valid, valid_error: the same on the validation samples.
    """

    name: str
    step: float
    train: float
    train_error: float
    valid: float
    valid_error: float


@dataclass(frozen=True)
class DirectionStudy:
    """Result of :func:`study_directions`: the reward at the start, slopes, and cosines by pair of names."""

    train_reward: float
    valid_reward: float
    n_train: int
    n_valid: int
    slopes: list[Slope]
    cosines: dict[str, dict[str, float]]


def study_directions(
    config: RPTConfig,
    *,
    dataset: str | Path,
    model: str | Path,
    steps: tuple[float, ...] = (0.001, 0.003),
    gradient_draws: int = 4,
    reward_draws: int = 8,
    max_targets: int = 2000,
) -> DirectionStudy:
    """Compare the estimators' directions at a pre-trained LARES model.

    Args:
        config: reward, group size, dropout, filter and so on; ``beta`` is taken as 0 here.
        dataset, model: as for RPT.
        steps: lengths of the steps, as shares of the norm of the weights.
        gradient_draws: passes over the samples that each gradient is averaged over.
        reward_draws: draws of the noise that each J is averaged over.
        max_targets: training targets looked at, from the first rows of a seeded order.
    """
    config = config.replace(beta=0.0)
    data = SequentialData.read(dataset)
    parent, _ = read_model(model)
    policy = load_policy(model, parent, config)
    mean_steps = parent.architecture["mean_steps"]
    rows, _ = training_rows(policy, parent, data, config)
    batches = epoch_batches(rows, config.batch_size, config.seed, 0)
    batches = batches[: max(1, round(max_targets / config.batch_size))]
    on_train = _train_rewards(policy, rows, batches, config, mean_steps, reward_draws)
    on_valid = _valid_rewards(policy, data, config, mean_steps, reward_draws)
    gradients = {
        name: _gradient(policy, rows, batches, config.replace(estimator=name), mean_steps, gradient_draws)
        for name in ESTIMATORS
    }
    gradients["cross_entropy"] = _cross_entropy_gradient(policy, rows, batches, config, mean_steps)
    train_start, valid_start = on_train(), on_valid()
    weights = torch.nn.utils.parameters_to_vector(policy.parameters()).detach().clone()
    slopes = []
    for name, gradient in gradients.items():
        for step in steps:
            offset = -step * weights.norm() * gradient / gradient.norm().clamp(min=1e-30)
            sides = []
            for sign in (1, -1):
                torch.nn.utils.vector_to_parameters(weights + sign * offset, policy.parameters())
                sides.append((on_train(), on_valid()))
            train, valid = ((sides[0][part] - sides[1][part]) / 2 for part in (0, 1))
            slopes.append(Slope(name, step, *_mean_and_error(train), *_mean_and_error(valid)))
    torch.nn.utils.vector_to_parameters(weights, policy.parameters())
    return DirectionStudy(
        train_reward=float(train_start.mean()),
        valid_reward=float(valid_start.mean()),
        n_train=len(train_start),
        n_valid=len(valid_start),
        slopes=slopes,
        cosines={
            a: {b: float(F.cosine_similarity(x, y, dim=0)) for b, y in gradients.items()}
            for a, x in gradients.items()
        },
    )


def _gradient(
    policy: LARES, rows: Rows, batches: list[np.ndarray], config: RPTConfig, mean_steps: int, draws: int
) -> Tensor:
    """Gradient of an estimator's loss, averaged over batches and draws, as one vector."""
    loss = RPTLoss(policy, None, rows, config, mean_steps=mean_steps, step_sampler="poisson_lognormal")
    return _accumulate(policy, batches, draws, config.seed, lambda batch: loss(batch)[0])


def _cross_entropy_gradient(
    policy: LARES, rows: Rows, batches: list[np.ndarray], config: RPTConfig, mean_steps: int
) -> Tensor:
    def loss(indices: np.ndarray) -> Tensor:
        batch = collate(rows, indices, policy.n_items, next(policy.parameters()).device)
        steps = sample_steps("poisson_lognormal", mean_steps)
        final_BLD = policy.trajectory(policy.prelude(batch.items_BL), steps)[-1]
        logits_PN = policy.score(final_BLD[batch.counted_BL])
        return F.cross_entropy(logits_PN, batch.targets_BL[batch.counted_BL])

    return _accumulate(policy, batches, config.num_generations, config.seed, loss)


def _accumulate(
    policy: LARES,
    batches: list[np.ndarray],
    draws: int,
    seed: int,
    loss: Callable[[np.ndarray], Tensor],
) -> Tensor:
    policy.train()
    policy.zero_grad(set_to_none=False)
    for draw in range(draws):
        for index, batch in enumerate(batches):
            reseed(seed + 1, draw * len(batches) + index)
            loss(batch).backward()
    parts = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for parameter in policy.parameters()
    ]
    gradient = torch.cat([part.flatten() for part in parts]) / (draws * len(batches))
    policy.zero_grad(set_to_none=True)
    return gradient


def _train_rewards(
    policy: LARES, rows: Rows, batches: list[np.ndarray], config: RPTConfig, mean_steps: int, draws: int
) -> Rewards:
    @torch.no_grad()
    def rewards() -> np.ndarray:
        policy.train()
        total = []
        for index, indices in enumerate(batches):
            batch = collate(rows, indices, policy.n_items, next(policy.parameters()).device)
            per_draw = []
            for draw in range(draws):
                reseed(config.seed + 2, draw * len(batches) + index)
                steps = sample_steps("poisson_lognormal", mean_steps)
                final_BLD = policy.trajectory(policy.prelude(batch.items_BL), steps)[-1]
                per_draw.append(
                    _rewards_of(
                        policy, final_BLD[batch.counted_BL], batch.targets_BL[batch.counted_BL], config
                    )
                )
            total.append(torch.stack(per_draw).mean(dim=0))
        return torch.cat(total).cpu().numpy()

    return rewards


def _valid_rewards(
    policy: LARES, data: SequentialData, config: RPTConfig, mean_steps: int, draws: int
) -> Rewards:
    """Validation as it is served: no dropout, μ steps, several seeds of the initial state."""
    device = next(policy.parameters()).device
    keep = [index for index in range(len(data.valid)) if len(data.valid.history(index))]
    items_BL, lengths_B = pad_right(
        [data.valid.history(index) for index in keep], policy.n_items, policy.max_length, device
    )
    targets_B = torch.from_numpy(data.valid.targets[keep].astype(np.int64)).to(device)

    @torch.no_grad()
    def rewards() -> np.ndarray:
        policy.eval()
        hidden_BLD = policy.prelude(items_BL)
        per_seed = []
        for draw in range(max(1, draws // 4)):
            reseed(config.seed + 3, draw)
            states_BD = at_last_position(policy.trajectory(hidden_BLD, mean_steps)[-1], lengths_B)
            per_seed.append(_rewards_of(policy, states_BD, targets_B, config))
        return torch.stack(per_seed).mean(dim=0).cpu().numpy()

    return rewards


def _rewards_of(policy: LARES, states_PD: Tensor, targets_P: Tensor, config: RPTConfig) -> Tensor:
    return reward_of(rank_of(policy.score(states_PD), targets_P), config.reward, config.k)


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
