"""GRPO on noised latents (arXiv 2505.19092, §3.4) as pure functions of tensors: rewards, advantages, losses.

Shapes: P prompts of an optimizer batch, K noised copies of each (copy 0 is the clean latent), L answer
tokens, N latents of size d.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentrec.training.common.policy_gradient import group_advantage

PROMPTS_OF_A_MICROBATCH = 2
"""Each of the authors' two processes has one prompt with its copies; rewards are gathered over both."""
EPSILON = 1e-6
PERPLEXITY_LIMIT = 100.0
"""Reward ``clipped_perplexity`` clips perplexities to this."""


def likelihood_reward(kind: str, log_probs_PKL: Tensor, counted_PL: Tensor) -> Tensor:
    """Reward of each copy from the log-probabilities of the true answer, (P, K).

    ``perplexity``, as published: ``s = −exp(−(1/|y|) Σ_t log π(y_t | x, r_k, y_<t))``; heavy-tailed.
    ``nll``: the mean log-probability. ``clipped_perplexity``: no less than −100.
    """
    mean_PK = log_probs_PKL.sum(dim=-1) / counted_PL.sum(dim=-1, keepdim=True)
    if kind == "nll":
        return mean_PK
    perplexity_PK = torch.exp(-mean_PK)
    if kind == "clipped_perplexity":
        perplexity_PK = perplexity_PK.clamp(max=PERPLEXITY_LIMIT)
    else:
        assert kind == "perplexity", kind
    return -perplexity_PK


def advantages(rewards_PK: Tensor, baseline: str) -> Tensor:
    """Advantage of each copy within one batch of rewards, (P, K).

    ``batch``, as published: ``A = (s − s̄) / (‖S − s̄‖₂ + 1e-6)`` with ``s̄`` the mean reward of the clean
    copies and the norm over the whole batch. ``group``: ``(s − mean) / (std + 1e-4)`` over a prompt's
    copies, as in GRPO. ``own``: what noise has gained over the same prompt's clean copy, scaled to unit
    root mean square.
    """
    if baseline == "batch":
        centered_PK = rewards_PK - rewards_PK[:, 0].mean()
        return centered_PK / (centered_PK.norm() + EPSILON)
    if baseline == "group":
        return group_advantage(rewards_PK, dim=1)
    assert baseline == "own", baseline
    gain_PK = rewards_PK - rewards_PK[:, :1]
    return gain_PK / (gain_PK.square().mean().sqrt() + EPSILON)


def batch_advantages(rewards_PK: Tensor, baseline: str, advantage_batch: str) -> Tensor:
    """:func:`advantages` over the ``optimizer`` batch, or over each ``microbatch`` of two prompts in it.

    A last prompt that is left over is a microbatch of its own (the authors' code raises).
    """
    if advantage_batch == "optimizer":
        return advantages(rewards_PK, baseline)
    assert advantage_batch == "microbatch", advantage_batch
    parts = rewards_PK.split(PROMPTS_OF_A_MICROBATCH)
    return torch.cat([advantages(part, baseline) for part in parts])


def prompt_token_means(values_PKL: Tensor, counted_PL: Tensor) -> Tensor:
    """Mean over all answer tokens of all copies of each prompt, (P,).

    The published loss is the mean of these over prompts: a micro-batch of the authors is one prompt with its
    copies, and the engine averages micro-batches. A token mean over the batch would weigh long titles more.
    """
    copies = values_PKL.shape[1]
    sums_P = (values_PKL * counted_PL[:, None]).sum(dim=(1, 2))
    return sums_P / (copies * counted_PL.sum(dim=1).clamp(min=1))


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """``−min(ρ A, clip(ρ, 1 − low, 1 + high) A)`` elementwise, and where the clip was active."""
    ratio = torch.exp(log_ratio)
    clipped = ratio.clamp(1 - low, 1 + high)
    loss = -torch.minimum(ratio * advantage, clipped * advantage)
    active = ((ratio < 1 - low) & (advantage < 0)) | ((ratio > 1 + high) & (advantage > 0))
    return loss, active


def gaussian_log_ratio(actions: Tensor, means: Tensor, old_means: Tensor, sigma: Tensor) -> Tensor:
    """``log N(a; μ, σ²I) − log N(a; μ_old, σ²I)`` summed over latents and dimensions.

    Args:
        actions, means, old_means: (P, K, N, d).
        sigma: standard deviation, broadcastable to (P, K).

    Returns:
        (P, K).
    """
    near = (actions - old_means).float().square().sum(dim=(-2, -1))
    far = (actions - means).float().square().sum(dim=(-2, -1))
    return (near - far) / (2 * sigma**2)


def gaussian_kl(means: Tensor, reference_means: Tensor, sigma: Tensor) -> Tensor:
    """``KL(N(μ, σ²I) ‖ N(μ_ref, σ²I)) = ‖μ − μ_ref‖² / 2σ²``, (P, K)."""
    return (means - reference_means).float().square().sum(dim=(-2, -1)) / (2 * sigma**2)


def concentration(advantages_PK: Tensor) -> Tensor:
    """Share of ``ΣA²`` that the heaviest hundredth of the prompts (at least one) has."""
    mass_P = advantages_PK.square().sum(dim=1)
    heaviest = max(1, round(0.01 * len(mass_P)))
    return mass_P.topk(heaviest).values.sum() / mass_P.sum().clamp(min=1e-20)
