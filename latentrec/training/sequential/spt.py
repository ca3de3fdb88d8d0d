"""LARES phase 1, self-supervised pre-training (arXiv 2505.16865, §3.3).

``L = CE + α ½[CL(a1, a2) + CL(a2, a1)] + γ ½[CL(a1, s) + CL(s, a1)]``, CL an InfoNCE within the batch.

* CE: a forward with its own number of steps.
* a1: final state of a second stochastic forward; a2: final state of *another* training prefix with the same
  target, same number of steps (trajectory-level alignment); s: a1's own trajectory at a random earlier step
  (step-level alignment), absent when there is one step.

Decisions where the published code leaves them open (``profile paper`` restores its way): CE and the
alignments draw their step counts apart; s is never the last step, which would be a1 itself (``step_view
any``); examples that share the target, and positions of one row, are no negatives (``negatives all``); a
target without a second prefix is its own a2, under another dropout and initial state; states are compared by
their cosine (``similarity dot``: states come out of a layer norm with a length of about √d, so that at τ = 1
the alignments' gradient is many times the cross-entropy's).

Where the time goes: a user's prefixes share one pass (:mod:`latentrec.training.sequential.rows`), and only a2
has to be run prefix by prefix, in batches of like length. Therefore the anchors of the alignments are, unless
``anchors`` is ``all``, one position of each row, drawn afresh every time: the cross-entropy still counts all.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentrec.models.sequential import LARES, at_last_position, sample_steps
from latentrec.models.sequential.noise import Part, rows_of
from latentrec.training.sequential.item_softmax import AllScores, DrawnScores, ItemSoftmax
from latentrec.training.sequential.processes import ALONE, Processes
from latentrec.training.sequential.rows import Batch, Rows, collate, rows_in
from latentrec.training.sequential.same_target import SameTarget
from latentrec.training.sequential.sequential_config import SequentialConfig


def info_nce(anchors_PD: Tensor, others_PD: Tensor, temperature: float, excluded_PP: Tensor | None) -> Tensor:
    """Mean over anchors of −log softmax(anchor · other / τ) at the anchor's own partner.

    Args:
        anchors_PD, others_PD: row i of one belongs to row i of the other.
        temperature: τ.
        excluded_PP: bool, pairs that are no negatives; the diagonal is never excluded.
    """
    similarity_PP = anchors_PD @ others_PD.T / temperature
    if excluded_PP is not None:
        similarity_PP = similarity_PP.masked_fill(excluded_PP, -torch.inf)
    return F.cross_entropy(similarity_PP, torch.arange(len(anchors_PD), device=anchors_PD.device))


def alignment(a_PD: Tensor, b_PD: Tensor, temperature: float, excluded_PP: Tensor | None) -> Tensor:
    """Both directions: ``½[CL(a, b) + CL(b, a)]``; ``excluded_PP`` is symmetric."""
    there = info_nce(a_PD, b_PD, temperature, excluded_PP)
    back = info_nce(b_PD, a_PD, temperature, excluded_PP)
    return 0.5 * (there + back)


def not_negatives(targets_P: Tensor, rows_P: Tensor) -> Tensor:
    """bool (P, P): pairs of the same target or the same row, without the diagonal."""
    excluded = targets_P[:, None].eq(targets_P[None, :]) | rows_P[:, None].eq(rows_P[None, :])
    return excluded.fill_diagonal_(False)


class SPTLoss:
    """The loss of one batch of rows, callable by the training loop.

    Every process draws whole batches of anchors, partners and noise; it runs its own rows and partners, and
    gathers the states that the alignments compare.

    Args:
        encoder: LARES, in training mode when called.
        rows: training rows.
        config: step counts, weights of the terms (one of weight 0 costs nothing) and how they are made.
        softmax: of the cross-entropy, over all items unless given.
        processes: those that share a batch.
    """

    def __init__(
        self,
        encoder: LARES,
        rows: Rows,
        config: SequentialConfig,
        softmax: ItemSoftmax | None = None,
        processes: Processes = ALONE,
    ):
        self.encoder, self.rows, self.config = encoder, rows, config
        self.softmax, self.processes = softmax or ItemSoftmax(), processes
        self.same_target = SameTarget.build(rows)
        self.device = next(encoder.parameters()).device

    def __call__(self, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """This process's part of the loss of the rows at ``indices``, and of its terms."""
        config, share = self.config, 1 / self.processes.size
        whole = collate(self.rows, indices, self.encoder.n_items, self.device)
        part = self.processes.part(len(indices))
        batch = rows_in(whole, part)
        self.softmax.draw(self.device)
        steps, thoughts = self._thoughts(batch, part)
        loss = part_of_cross_entropy(
            self.softmax.of(self.encoder, thoughts[-1][batch.counted_BL]), batch, whole
        )
        parts = {"cross_entropy": loss.item(), "steps": steps * share}
        if config.trajectory_weight == 0 and config.step_weight == 0:
            return loss, parts
        chosen_A = self._anchors(whole.counted_BL)
        places_A2 = whole.counted_BL.nonzero()[chosen_A]
        excluded_AA = self._excluded(whole.targets_BL[whole.counted_BL][chosen_A], places_A2[:, 0])
        if config.views == "separate":
            steps, thoughts = self._thoughts(batch, part)
        view_AD = self._gather(thoughts[-1], places_A2, part)
        if config.trajectory_weight:
            positions = self.same_target.positions_of(indices)[chosen_A.cpu().numpy()]
            trajectory = self._align(view_AD, self._same_target_states(positions, steps), excluded_AA)
            loss = loss + config.trajectory_weight * self.processes.once(trajectory)
            parts["trajectory_alignment"] = trajectory.item() * share
        if config.step_weight and steps > 1:
            last = steps - 1 if config.step_view == "earlier" else steps
            earlier_AD = self._gather(thoughts[int(torch.randint(last, ()))], places_A2, part)
            step = self._align(view_AD, earlier_AD, excluded_AA)
            loss = loss + config.step_weight * self.processes.once(step)
            parts["step_alignment"] = step.item() * share
        return loss, parts

    def _thoughts(self, batch: Batch, part: Part) -> tuple[int, list[Tensor]]:
        """A number of steps, drawn, and the states (B, L, d) of this process's rows after each."""
        steps = sample_steps(self.config.step_sampler, self.config.mean_steps)
        with rows_of(part):
            return steps, self.encoder.trajectory(self.encoder.prelude(batch.items_BL), steps)

    def _align(self, a_AD: Tensor, b_AD: Tensor, excluded_AA: Tensor | None) -> Tensor:
        if self.config.similarity == "cosine":
            a_AD, b_AD = F.normalize(a_AD, dim=-1), F.normalize(b_AD, dim=-1)
        return alignment(a_AD, b_AD, float(self.config.temperature or 0), excluded_AA)

    def _anchors(self, counted_BL: Tensor) -> Tensor:
        """int64 (A,): which of the batch's positions that count are anchors, in order."""
        rows_P = counted_BL.nonzero()[:, 0]
        if self.config.anchors == "all":
            return torch.arange(len(rows_P), device=self.device)
        count_B = counted_BL.sum(dim=1)
        drawn_B = (torch.rand(len(count_B), device=self.device) * count_B).long()
        return (count_B.cumsum(0) - count_B + torch.minimum(drawn_B, count_B - 1))[count_B > 0]

    def _excluded(self, targets_A: Tensor, rows_A: Tensor) -> Tensor | None:
        return None if self.config.negatives == "all" else not_negatives(targets_A, rows_A)

    def _gather(self, states_BLD: Tensor, places_A2: Tensor, part: Part) -> Tensor:
        """States (A, d) at (row of the whole batch, position), of which this process has its own rows'."""
        row_here = torch.full((part.total,), -1, dtype=torch.int64, device=self.device)
        if part.counts:
            row_here[part.rows.to(self.device)] = torch.arange(len(part.rows), device=self.device)
        rows_A = row_here[places_A2[:, 0]]
        own = (rows_A >= 0).nonzero()[:, 0]
        return self.processes.gather(states_BLD[rows_A[own], places_A2[own, 1]], own, len(places_A2))

    def _same_target_states(self, positions: np.ndarray, steps: int) -> Tensor:
        """a2 (A, d): final states of other prefixes with the targets of ``positions``, in that order."""
        partners = self.same_target.draw(positions)
        places, states = [], []
        for members, items_BL, lengths_B in self.same_target.buckets(partners, self.encoder.n_items):
            part = self.processes.part(len(members))
            items_BL, lengths_B = (one[part.rows].to(self.device) for one in (items_BL, lengths_B))
            with rows_of(part):
                final_BLD = self.encoder.trajectory(self.encoder.prelude(items_BL), steps)[-1]
            own = slice(None) if part.counts else slice(0)
            states.append(at_last_position(final_BLD, lengths_B)[own])
            places.append(torch.from_numpy(members)[part.rows][own])
        return self.processes.gather(torch.cat(states), torch.cat(places).to(self.device), len(partners))


def part_of_cross_entropy(scores: AllScores | DrawnScores, batch: Batch, whole: Batch) -> Tensor:
    """What the targets of ``batch`` add to the mean over all targets of the batch that it is a part of."""
    log_p_P = scores.log_likelihood(batch.targets_BL[batch.counted_BL])
    return -log_p_P.sum() / whole.counted_BL.sum()
