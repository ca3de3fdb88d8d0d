"""Objectives over p, the probability of the true title among the catalogue's: weights of ∇log p, and values.

All are supervised losses: nothing is sampled. What they share is the gradient ``w(p) ∇log p``; they differ
in how far samples that the model already finds likely lead those that it does not.

``likelihood``  w = 1: cross-entropy.
``power``       w = p^q: generalized cross-entropy, whose loss is ``(1 − p^q) / q`` (Zhang and Sabuncu 2018,
                arXiv 1805.07836). q → 0 is the likelihood, q = 1 the expected 0/1 reward.
``arcsin``      w = √(p / (1 − p)): ascent on ``2 arcsin √p``. This is what reinforcement learning with a 0/1
                reward and a group's standardized advantage maximizes as the group grows without bound (Davis
                and Recht 2025, arXiv 2510.13651). For p ≪ 1 it is ``power`` with q = ½.
``grpo``        w = w_G(p): the same for a group of G, which a trainer could really draw:
                ``w_G(p) = E[√(k (G − k))] / (G (1 − p))``, k ~ Binomial(G, p): the right titles among G
                draws. For p ≪ 1/G it is about ``p √(G − 1)``: most groups hold no right title and then say
                nothing.

:mod:`latentrec.training.latentr3.sampled_titles` draws the G titles, so that the last line can be checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-6
_LOG_SMALLEST = -80.0


def gradient_weight(
    log_p: Tensor, objective: str, *, exponent: float = 0.5, num_generations: int = 8
) -> Tensor:
    """What ``∇log p`` of each true title is multiplied by.

    Args:
        log_p: log-probabilities of true titles, any shape, without gradient.
        objective: ``arcsin``, ``power``, ``grpo`` or ``likelihood``.
        exponent: q of ``power``.
        num_generations: G of ``grpo``.
    """
    if objective == "likelihood":
        return torch.ones_like(log_p)
    if objective == "power":
        return torch.exp(exponent * log_p)
    if objective == "arcsin":
        return torch.exp(log_p / 2) / torch.sqrt(-torch.expm1(log_p)).clamp(min=SMALLEST)
    assert objective == "grpo", objective
    return _group_weight(log_p, num_generations)


def objective_value(
    log_p: Tensor, objective: str, *, exponent: float = 0.5, num_generations: int = 8
) -> Tensor:
    """What ascent along :func:`gradient_weight` maximizes, elementwise.

    ``likelihood``: log p. The others run from 0 (p = 0) to 1 (p = 1): ``p^q``, ``(2 / π) arcsin √p``, and for
    ``grpo`` the share of ``Σ_{j<G} 1 / √(j (G − j))`` that the first Binomial(G − 1, p) terms hold in the
    mean.
    """
    if objective == "likelihood":
        return log_p
    if objective == "power":
        return torch.exp(exponent * log_p)
    if objective == "arcsin":
        return torch.asin(torch.exp(log_p / 2).clamp(max=1)) * (2 / torch.pi)
    assert objective == "grpo", objective
    return _group_value(log_p, num_generations)


def _binomial(log_p: Tensor, draws: int, counts: Tensor) -> Tensor:
    """P(Binomial(draws, p) = k) for each k of ``counts``, (…, len(counts))."""
    log_p = log_p[..., None].clamp(min=_LOG_SMALLEST)
    log_1mp = torch.log(-torch.expm1(log_p)).clamp(min=_LOG_SMALLEST)
    log_choose = torch.lgamma(counts.new_tensor(draws + 1.0)) - (
        torch.lgamma(counts + 1) + torch.lgamma(draws - counts + 1)
    )
    return torch.exp(log_choose + counts * log_p + (draws - counts) * log_1mp)


def _group_weight(log_p: Tensor, size: int) -> Tensor:
    """``Σ_k C(G, k) p^k (1 − p)^(G−k−1) √(k (G − k)) / G``; since C(G, k) (G − k) = G C(G − 1, k), that is
    ``E[√(k / (G − k))]`` with k ~ Binomial(G − 1, p), which divides by no 1 − p."""
    counts = torch.arange(size, device=log_p.device, dtype=log_p.dtype)
    return (_binomial(log_p, size - 1, counts) * torch.sqrt(counts / (size - counts))).sum(dim=-1)


def _group_value(log_p: Tensor, size: int) -> Tensor:
    """``∫ w_G(p) / p dp = Σ_{j=1}^{G−1} P(Binomial(G − 1, p) ≥ j) / √(j (G − j))``, divided by its value at
    p = 1."""
    counts = torch.arange(size, device=log_p.device, dtype=log_p.dtype)
    steps = torch.zeros_like(counts)
    steps[1:] = 1 / torch.sqrt(counts[1:] * (size - counts[1:]))
    reached = steps.cumsum(0)
    return (_binomial(log_p, size - 1, counts) * reached).sum(dim=-1) / reached[-1]
