"""One batch of reinforcement post-training: G stochastic forwards, rewards, the estimator's loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from latentrec.models.sequential import LARES, sample_steps
from latentrec.models.sequential.noise import Part, rows_of
from latentrec.training.common.policy_gradient import group_advantage, kl_estimate
from latentrec.training.sequential.item_softmax import AllScores, DrawnScores, ItemSoftmax
from latentrec.training.sequential.processes import ALONE, Processes
from latentrec.training.sequential.rows import NO_TARGET, Batch, Rows, collate, rows_in
from latentrec.training.sequential.rpt_config import RPTConfig
from latentrec.training.sequential.rpt_loss import (
    gaussian_loss,
    likelihood_loss,
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
        softmax: over all items unless given.
        processes: those that share a batch.
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
        softmax: ItemSoftmax | None = None,
        processes: Processes = ALONE,
    ):
        self.policy, self.reference, self.rows, self.config = policy, reference, rows, config
        self.mean_steps, self.step_sampler = mean_steps, step_sampler
        self.softmax, self.processes = softmax or ItemSoftmax(), processes
        self.device = next(policy.parameters()).device

    def __call__(self, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """This process's part of the loss of the rows at ``indices``, and of its forwards' mean reward."""
        whole = collate(self.rows, indices, self.policy.n_items, self.device)
        part = self.processes.part(len(indices))
        self.softmax.draw(self.device)
        compute = {
            "target_likelihood": self._likelihood,
            "gaussian": self._gaussian,
            "smoothed": self._smoothed,
        }[str(self.config.estimator)]
        with rows_of(part):
            batch = rows_in(whole, part)
            groups = range(self.config.num_generations)
            steps = [sample_steps(self.step_sampler, self.mean_steps) for _ in groups]
            thoughts = [self._counted_thoughts(self.policy, batch, steps[g]) for g in groups]
            losses, figures = compute(Shared(whole, batch, part), thoughts)
            count = whole.counted_BL.sum()
            loss = torch.stack(losses).sum() / (len(losses) * count)
            return loss, {name: (value.sum() / count).item() for name, value in figures.items()}

    def _likelihood(
        self, shared: Shared, thoughts: list[list[Tensor]]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        targets_P = shared.targets_P
        log_p, rewards, entropies = [], [], []
        for states in thoughts:
            parts = [self._log_p_and_rank(state, targets_P) for state in states]
            with torch.no_grad():
                entropies.append(self.softmax.of(self.policy, states[-1]).entropy())
            log_p.append(torch.stack([part[0] for part in parts]))
            rewards.append(reward_of(parts[-1][1], self.config.reward, self.config.k))
        rewards_GP = torch.stack(rewards)
        advantage_GP = group_advantage(rewards_GP, dim=0)
        losses = []
        for lp_TP, advantage_P in zip(log_p, advantage_GP, strict=True):
            reference_TP = self._reference_log_p(shared.batch, targets_P, len(lp_TP), every_step=True)
            if reference_TP is None:
                reference_TP = lp_TP.detach()
            losses.append(likelihood_loss(lp_TP, reference_TP, advantage_P, self.config.beta))
        within_P = rewards_GP.std(dim=0)
        figures = {
            "reward": rewards_GP.mean(dim=0),
            "reward_std_within_group": within_P,
            "groups_with_signal": (within_P > 0).float(),
            "entropy": torch.stack(entropies).mean(dim=0),
        }
        return losses, figures

    def _gaussian(
        self, shared: Shared, thoughts: list[list[Tensor]]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        losses, rewards = [], []
        positions_P = shared.positions_P
        count = shared.whole.counted_BL.sum()
        for states in thoughts:
            final_PD = states[-1]
            squares = self.processes.sum(final_PD.detach().pow(2).sum())
            std = NOISE_STD * (squares / (count * final_PD.shape[1])).sqrt()
            noise_MPD = torch.randn(NOISE_DRAWS, int(count), final_PD.shape[1], device=self.device)
            noise_MPD = noise_MPD[:, positions_P]
            with torch.no_grad():
                rewards_MP = torch.stack(
                    [self._rewards(final_PD + std * noise, shared.targets_P) for noise in noise_MPD]
                )
            loss_P = gaussian_loss(final_PD, noise_MPD, rewards_MP, std)
            losses.append(loss_P + self._final_penalty(shared, final_PD, len(states)))
            rewards.append(rewards_MP.mean(dim=0))
        return losses, {"reward": torch.stack(rewards).mean(dim=0)}

    def _smoothed(
        self, shared: Shared, thoughts: list[list[Tensor]]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        losses, rewards = [], []
        targets_P = shared.targets_P
        for states in thoughts:
            scores = self.softmax.of(self.policy, states[-1])
            own_P, best_PK = scores.best_others(targets_P, self.config.k)
            expected_P = smoothed_reward(own_P, best_PK, self.config.reward, SMOOTHING)
            penalty_P = self._final_penalty(shared, states[-1], len(states), scores)
            losses.append(penalty_P - expected_P)
            rewards.append(reward_of(scores.ranks(targets_P), self.config.reward, self.config.k))
        return losses, {"reward": torch.stack(rewards).mean(dim=0)}

    def _final_penalty(
        self,
        shared: Shared,
        final_PD: Tensor,
        steps: int,
        scores: AllScores | DrawnScores | None = None,
    ) -> Tensor:
        """β times the drift (P,) of the target's log-probability at the final step, the policy here."""
        reference_TP = self._reference_log_p(shared.batch, shared.targets_P, steps, every_step=False)
        if reference_TP is None:
            return final_PD.new_zeros(len(final_PD))
        scores = self.softmax.of(self.policy, final_PD) if scores is None else scores
        return self.config.beta * kl_estimate(scores.log_likelihood(shared.targets_P), reference_TP[-1])

    def _counted_thoughts(self, model: LARES, batch: Batch, steps: int) -> list[Tensor]:
        """T_1 … T_steps at the positions that count, each (P, d)."""
        thoughts = model.trajectory(model.prelude(batch.items_BL), steps)
        return [thought_BLD[batch.counted_BL] for thought_BLD in thoughts]

    def _log_p_and_rank(self, states_PD: Tensor, targets_P: Tensor) -> tuple[Tensor, Tensor]:
        """log p(target) and rank of the target, (P,) each; scores are recomputed in the backward pass.

        One forward has up to 3μ steps and each a score for every item: kept, they would be the largest thing
        in memory by far. Scores of drawn items are few, and are kept.
        """

        def compute(states_PD: Tensor) -> tuple[Tensor, Tensor]:
            scores = self.softmax.of(self.policy, states_PD)
            return scores.log_likelihood(targets_P), scores.ranks(targets_P)

        if self.softmax.sampled:
            return compute(states_PD)
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
        return torch.stack(
            [self.softmax.of(self.reference, state).log_likelihood(targets_P) for state in wanted]
        )

    def _rewards(self, states_PD: Tensor, targets_P: Tensor) -> Tensor:
        ranks_P = self.softmax.of(self.policy, states_PD).ranks(targets_P)
        return reward_of(ranks_P, self.config.reward, self.config.k)


@dataclass(frozen=True)
class Shared:
    """A batch of which this process computes a part.

    Attributes:
        whole: the batch.
        batch: the rows computed here.
        part: which ones these are.
    """

    whole: Batch
    batch: Batch
    part: Part

    @property
    def targets_P(self) -> Tensor:
        """int64 (P,): the targets computed here."""
        return self.batch.targets_BL[self.batch.counted_BL]

    @property
    def positions_P(self) -> Tensor:
        """int64 (P,): of each, its place among the targets of the whole batch."""
        rows = self.whole.counted_BL.nonzero()[:, 0]
        own = torch.isin(rows, self.part.rows.to(rows.device)) & self.part.counts
        return own.nonzero()[:, 0]


@torch.no_grad()
def within_reach(
    policy: LARES,
    rows: Rows,
    config: RPTConfig,
    mean_steps: int,
    step_sampler: str,
    softmax: ItemSoftmax | None = None,
    processes: Processes = ALONE,
) -> Rows:
    """The rows with those targets only that reach the first ``filter_top`` in one of a few passes.

    Each pass has its own initial states, and its own dropout and step count unless the
    profile is ``paper``. Rows without a target left are dropped. Processes share the batches, whose noise
    is each one's own: what is kept does not depend on how many there are.
    """
    softmax = softmax or ItemSoftmax()
    device = next(policy.parameters()).device
    evaluation = config.filters_in_evaluation_mode
    policy.train(not evaluation)
    kept = torch.zeros(len(rows.targets), dtype=torch.int32, device=device)
    starts = range(0, len(rows), FILTER_BATCH_ROWS)
    for start in starts[processes.rank :: processes.size]:
        indices = np.arange(start, min(start + FILTER_BATCH_ROWS, len(rows)))
        reseed(config.seed, start)
        batch = collate(rows, indices, policy.n_items, device)
        counted_BL = batch.counted_BL
        targets_P = batch.targets_BL[counted_BL]
        reached_P = torch.zeros(len(targets_P), dtype=torch.bool, device=device)
        for _ in range(config.filter_passes):
            steps = mean_steps if evaluation else sample_steps(step_sampler, mean_steps)
            final_BLD = policy.trajectory(policy.prelude(batch.items_BL), steps)[-1]
            ranks_P = softmax.of(policy, final_BLD[counted_BL]).ranks(targets_P)
            reached_P |= ranks_P <= config.filter_top
        flat = np.arange(rows.offsets[indices[0]], rows.offsets[indices[-1] + 1])
        counted = torch.from_numpy(flat[rows.targets[flat] != NO_TARGET]).to(device)
        kept[counted] = reached_P.int()
    found = processes.sum(kept).cpu().numpy() > 0
    return _without_empty_rows(replace(rows, targets=np.where(found, rows.targets, NO_TARGET)))


def _without_empty_rows(rows: Rows) -> Rows:
    keep = rows.targets_per_row > 0
    flat = np.repeat(keep, rows.lengths)
    lengths = rows.lengths[keep]
    return Rows(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=rows.items[flat],
        targets=rows.targets[flat],
    )
