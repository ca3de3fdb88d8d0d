"""One batch of reinforcement post-training: G stochastic forwards, rewards, the estimator's loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from latentrec.models.sequential import LARES, sample_steps
from latentrec.training.common.policy_gradient import group_advantage, kl_estimate
from latentrec.training.sequential.rows import NO_TARGET, Batch, Rows, collate
from latentrec.training.sequential.rpt_config import RPTConfig
from latentrec.training.sequential.rpt_loss import (
    gaussian_loss,
    likelihood_loss,
    rank_of,
    reward_of,
    smoothed_reward,
)
from latentrec.training.sequential.state import reseed

FILTER_BATCH_ROWS = 128
NOISE_STD, NOISE_DRAWS = 0.1, 8
"""Of estimator ``gaussian``: noise of the state in units of its root mean square, and draws of it."""
SMOOTHING = 1.0
"""Of estimator ``smoothed``: scale of the logistic noise on the target's score."""


class RPTLoss:
    """The loss of one batch of rows, callable by the training loop.

    Args:
        policy: LARES, trained in place; in training mode when called, so that dropout is part of the noise.
        reference: the frozen SPT model in evaluation mode, or ``None`` where ``beta`` is 0.
        rows: training rows (after the hard-sample filter).
        config: estimator, reward, group size and so on.
        mean_steps, step_sampler: as in the model's own pre-training.
    """

    def __init__(
        self,
        policy: LARES,
        reference: LARES | None,
        rows: Rows,
        config: RPTConfig,
        *,
        mean_steps: int,
        step_sampler: str,
    ):
        self.policy, self.reference, self.rows, self.config = policy, reference, rows, config
        self.mean_steps, self.step_sampler = mean_steps, step_sampler
        self.device = next(policy.parameters()).device

    def __call__(self, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Loss of the rows at ``indices``, and the mean reward of its forwards."""
        batch = collate(self.rows, indices, self.policy.n_items, self.device)
        groups = range(self.config.num_generations)
        steps = [sample_steps(self.step_sampler, self.mean_steps) for _ in groups]
        thoughts = [self._counted_thoughts(self.policy, batch, steps[g]) for g in groups]
        targets_P = batch.targets_BL[batch.counted_BL]
        compute = {
            "target_likelihood": self._likelihood,
            "gaussian": self._gaussian,
            "smoothed": self._smoothed,
        }[str(self.config.estimator)]
        return compute(batch, targets_P, thoughts)

    def _likelihood(
        self, batch: Batch, targets_P: Tensor, thoughts: list[list[Tensor]]
    ) -> tuple[Tensor, dict[str, float]]:
        log_p, rewards, entropies = [], [], []
        for states in thoughts:
            parts = [self._log_p_and_rank(state, targets_P) for state in states]
            with torch.no_grad():
                scores_PN = torch.log_softmax(self.policy.score(states[-1]), dim=-1)
                entropies.append(-(scores_PN.exp() * scores_PN).sum(dim=-1).mean())
            log_p.append(torch.stack([part[0] for part in parts]))
            rewards.append(reward_of(parts[-1][1], self.config.reward, self.config.k))
        rewards_GP = torch.stack(rewards)
        advantage_GP = group_advantage(rewards_GP, dim=0)
        losses = []
        for lp_TP, advantage_P in zip(log_p, advantage_GP, strict=True):
            reference_TP = self._reference_log_p(batch, targets_P, len(lp_TP), every_step=True)
            if reference_TP is None:
                reference_TP = lp_TP.detach()
            losses.append(likelihood_loss(lp_TP, reference_TP, advantage_P, self.config.beta))
        within_P = rewards_GP.std(dim=0)
        figures = {
            "reward": rewards_GP.mean().item(),
            "reward_std_within_group": within_P.mean().item(),
            "groups_with_signal": (within_P > 0).float().mean().item(),
            "entropy": torch.stack(entropies).mean().item(),
        }
        return torch.stack(losses).mean(), figures

    def _gaussian(
        self, batch: Batch, targets_P: Tensor, thoughts: list[list[Tensor]]
    ) -> tuple[Tensor, dict[str, float]]:
        losses, rewards = [], []
        for states in thoughts:
            final_PD = states[-1]
            std = NOISE_STD * final_PD.detach().pow(2).mean().sqrt()
            noise_MPD = torch.randn(NOISE_DRAWS, *final_PD.shape, device=self.device)
            with torch.no_grad():
                rewards_MP = torch.stack(
                    [
                        self._reward_of_scores(self.policy.score(final_PD + std * noise), targets_P)
                        for noise in noise_MPD
                    ]
                )
            loss = gaussian_loss(final_PD, noise_MPD, rewards_MP, std)
            losses.append(loss + self._final_penalty(batch, targets_P, final_PD, len(states)))
            rewards.append(rewards_MP.mean())
        return torch.stack(losses).mean(), {"reward": torch.stack(rewards).mean().item()}

    def _smoothed(
        self, batch: Batch, targets_P: Tensor, thoughts: list[list[Tensor]]
    ) -> tuple[Tensor, dict[str, float]]:
        losses, rewards = [], []
        for states in thoughts:
            scores_PN = self.policy.score(states[-1])
            expected_P = smoothed_reward(scores_PN, targets_P, self.config.reward, self.config.k, SMOOTHING)
            penalty = self._final_penalty(batch, targets_P, states[-1], len(states), scores_PN)
            losses.append(penalty - expected_P.mean())
            rewards.append(self._reward_of_scores(scores_PN.detach(), targets_P).mean())
        return torch.stack(losses).mean(), {"reward": torch.stack(rewards).mean().item()}

    def _final_penalty(
        self,
        batch: Batch,
        targets_P: Tensor,
        final_PD: Tensor,
        steps: int,
        scores_PN: Tensor | None = None,
    ) -> Tensor:
        """β times the drift of the target's log-probability at the final step, which is the policy here."""
        reference_TP = self._reference_log_p(batch, targets_P, steps, every_step=False)
        if reference_TP is None:
            return final_PD.new_zeros(())
        scores_PN = self.policy.score(final_PD) if scores_PN is None else scores_PN
        log_p_P = -F.cross_entropy(scores_PN, targets_P, reduction="none")
        return self.config.beta * kl_estimate(log_p_P, reference_TP[-1]).mean()

    def _counted_thoughts(self, model: LARES, batch: Batch, steps: int) -> list[Tensor]:
        """T_1 … T_steps at the positions that count, each (P, d)."""
        thoughts = model.trajectory(model.prelude(batch.items_BL), steps)
        return [thought_BLD[batch.counted_BL] for thought_BLD in thoughts]

    def _log_p_and_rank(self, states_PD: Tensor, targets_P: Tensor) -> tuple[Tensor, Tensor]:
        """log p(target) and rank of the target, (P,) each; scores are recomputed in the backward pass.

        One forward has up to 3μ steps and each a score for every item: kept, they would be the largest thing
        in memory by far.
        """

        def compute(states_PD: Tensor) -> tuple[Tensor, Tensor]:
            scores_PN = self.policy.score(states_PD)
            log_p_P = -F.cross_entropy(scores_PN, targets_P, reduction="none")
            return log_p_P, rank_of(scores_PN.detach(), targets_P)

        return checkpoint(compute, states_PD, use_reentrant=False, preserve_rng_state=False)

    @torch.no_grad()
    def _reference_log_p(
        self, batch: Batch, targets_P: Tensor, steps: int, *, every_step: bool
    ) -> Tensor | None:
        """log p(target) of the frozen model after the same number of steps, from its own initial state."""
        if self.reference is None:
            return None
        states = self._counted_thoughts(self.reference, batch, steps)
        wanted = states if every_step else states[-1:]
        scored = (self.reference.score(state) for state in wanted)
        return torch.stack([-F.cross_entropy(s, targets_P, reduction="none") for s in scored])

    def _reward_of_scores(self, scores_PN: Tensor, targets_P: Tensor) -> Tensor:
        return reward_of(rank_of(scores_PN, targets_P), self.config.reward, self.config.k)


@torch.no_grad()
def within_reach(policy: LARES, rows: Rows, config: RPTConfig, mean_steps: int, step_sampler: str) -> Rows:
    """The rows with those targets only that reach the first ``filter_top`` in one of a few passes.

    Each pass has its own initial states, and its own dropout and step count unless the
    profile is ``paper``. Rows without a target left are dropped.
    """
    device = next(policy.parameters()).device
    evaluation = config.filters_in_evaluation_mode
    policy.train(not evaluation)
    kept = np.zeros(len(rows.targets), bool)
    for start in range(0, len(rows), FILTER_BATCH_ROWS):
        indices = np.arange(start, min(start + FILTER_BATCH_ROWS, len(rows)))
        reseed(config.seed, start)
        batch = collate(rows, indices, policy.n_items, device)
        counted_BL = batch.counted_BL
        targets_P = batch.targets_BL[counted_BL]
        reached_P = torch.zeros(len(targets_P), dtype=torch.bool, device=device)
        for _ in range(config.filter_passes):
            steps = mean_steps if evaluation else sample_steps(step_sampler, mean_steps)
            final_BLD = policy.trajectory(policy.prelude(batch.items_BL), steps)[-1]
            ranks_P = rank_of(policy.score(final_BLD[counted_BL]), targets_P)
            reached_P |= ranks_P <= config.filter_top
        flat = np.arange(rows.offsets[indices[0]], rows.offsets[indices[-1] + 1])
        kept[flat[rows.targets[flat] != NO_TARGET]] = reached_P.cpu().numpy()
    return _without_empty_rows(replace(rows, targets=np.where(kept, rows.targets, NO_TARGET)))


def _without_empty_rows(rows: Rows) -> Rows:
    keep = rows.targets_per_row > 0
    flat = np.repeat(keep, rows.lengths)
    lengths = rows.lengths[keep]
    return Rows(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=rows.items[flat],
        targets=rows.targets[flat],
    )
