"""LARES phase 2: rewards, advantages, and three ways to the gradient of the expected reward.

A sample is a training target after its prefix; a *group* is G stochastic forwards of the same sample, with
their own initial states, dropout and step counts. The reward is read off the final step's ranking.

``target_likelihood``, as published (arXiv 2505.16865, §3.4): ``−exp(lp − sg(lp))·A`` at every step, lp the
    log-probability of the true item. It differentiates the probability of the target and not that of the
    noise that was sampled: with one fixed "action" it is likelihood training weighted by luck.
``gaussian``: score function. The final state h is the mean of a Gaussian policy, ``u = h + σ ε``; the reward
    of u is a number, and ``A·∇log N(u; h, σ²)`` is an unbiased gradient of ``E_ε[reward(h + σ ε)]`` by h.
``smoothed``: pathwise. The reward's step at the edge of the list is replaced by its expectation under
    logistic noise on the target's score: a function of the scores with a gradient of its own, no sampling.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentrec.training.common.policy_gradient import kl_estimate


def rank_of(scores_PN: Tensor, targets_P: Tensor) -> Tensor:
    """Place of each target among all items, from 1; items that score the same stand behind it."""
    own_P1 = scores_PN.gather(1, targets_P[:, None])
    return 1 + (scores_PN > own_P1).sum(dim=1)


def reward_of(ranks: Tensor, kind: str, k: int) -> Tensor:
    """``recall``: 1 within the first k; ``ndcg``: 1/log2(rank + 1) within the first k; else 0."""
    inside = (ranks <= k).float()
    return inside if kind == "recall" else inside / torch.log2(ranks.float() + 1)


def likelihood_loss(log_p_TP: Tensor, reference_log_p_TP: Tensor, advantage_P: Tensor, beta: float) -> Tensor:
    """The published loss (P,) of one forward: the mean over its steps, of each sample."""
    ratio_TP = torch.exp(log_p_TP - log_p_TP.detach())
    gain_TP = ratio_TP * advantage_P - beta * kl_estimate(log_p_TP, reference_log_p_TP)
    return -gain_TP.mean(dim=0)


def gaussian_loss(states_PD: Tensor, noise_MPD: Tensor, rewards_MP: Tensor, std: Tensor | float) -> Tensor:
    """Score-function loss (P,): ``−mean A · log N(h + σ ε; h, σ²)`` over the draws, the action held fixed.

    Args:
        states_PD: h, with gradient.
        noise_MPD: ε of each of M draws.
        rewards_MP: their rewards; the baseline of a draw is the mean of the other M − 1.
        std: σ.
    """
    draws = len(rewards_MP)
    advantage_MP = (rewards_MP - rewards_MP.mean(dim=0)) * (draws / (draws - 1))
    actions_MPD = (states_PD + std * noise_MPD).detach()
    log_density_MP = -((actions_MPD - states_PD) ** 2).sum(dim=-1) / (2 * std**2)
    return -(advantage_MP * log_density_MP).mean(dim=0)


def smoothed_reward(own_P: Tensor, best_PK: Tensor, kind: str, temperature: float) -> Tensor:
    """Expected reward (P,) when logistic noise of scale ``temperature`` falls on the target's score.

    With s_(j) the j-th best score of the other items, the target stands within the first j with probability
    ``σ((s_target − s_(j)) / temperature)``. Recall@k is that at j = k; NDCG@k is the sum over j of the
    probability of each place times its gain.

    Args:
        own_P: score of each target.
        best_PK: scores of the k best other items, best first.
        kind: ``recall`` or ``ndcg``, both at k.
        temperature: scale of the noise.
    """
    within_PK = torch.sigmoid((own_P[:, None] - best_PK) / temperature)
    if kind == "recall":
        return within_PK[:, -1]
    gains = [1 / math.log2(place + 1) for place in range(1, within_PK.shape[1] + 1)]
    # The gain of place j is had by all who stand within j, less what the next place gives.
    steps = torch.tensor([now - after for now, after in zip(gains, [*gains[1:], 0.0], strict=True)])
    return within_PK @ steps.to(within_PK)
