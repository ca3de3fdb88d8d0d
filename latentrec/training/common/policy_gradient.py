"""Formulas that every policy gradient here uses, as pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

ADVANTAGE_EPSILON = 1e-4


def group_advantage(rewards: Tensor, dim: int) -> Tensor:
    """GRPO's advantage, ``(r − mean) / (std + 1e-4)`` within the group along ``dim`` (arXiv 2402.03300)."""
    centered = rewards - rewards.mean(dim=dim, keepdim=True)
    return centered / (rewards.std(dim=dim, keepdim=True) + ADVANTAGE_EPSILON)


def kl_estimate(log_p: Tensor, reference_log_p: Tensor) -> Tensor:
    """trl's estimator of KL(π ‖ π_ref), elementwise: ``e^δ − δ − 1 ≥ 0`` with ``δ = log π_ref − log π``."""
    difference = reference_log_p - log_p
    return torch.exp(difference) - difference - 1
