"""What a loss asks of all items' scores: their softmax, or an estimate with memory flat in their number.

``AllScores`` holds the scores (P, N). ``DrawnScores`` never does: a likelihood is by sampled softmax, and
ranks and best items, which have to be exact, come from scores that are made and dropped in chunks of items.

Sampled softmax (Bengio and Senécal, 2008): the sum over all items but the target is estimated from M drawn
ones, each weighted by one over its expected count, which is the correction by log Q (Yi et al., 2019,
"Sampling-bias-corrected neural modeling for large corpus item recommendations"). The estimate of the sum is
unbiased whatever the proposal; the logarithm of it is so in the limit of many draws. The draws are
stratified: the expected counts, at most 1 an item, are laid end to end and each unit of length gives one
draw; so M = N draws are all items, each once, and the loss is the full softmax's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentrec.models.sequential import SequenceEncoder
from latentrec.training.common.world import is_first_process
from latentrec.training.sequential.rows import NO_TARGET, Rows
from latentrec.training.sequential.rpt_loss import rank_of

logger = logging.getLogger(__name__)

Sampling = Literal["popularity", "uniform"]
ITEMS_PER_CHUNK = 65_536
"""Items scored at once where all are needed one after another."""
POPULARITY_EXPONENT = 0.75
"""Of the training count, as word2vec draws its negatives (Mikolov et al., 2013)."""


class ItemSoftmax:
    """The softmax over the catalogue, full or over items drawn anew each step.

    Args:
        counts: int (N,), training targets of each item; ``None`` for the softmax over all.
        draws: M, items drawn each step.
        sampling: ``popularity``: in proportion to (count + 1) ** 0.75; ``uniform``.
    """

    def __init__(self, counts: np.ndarray | None = None, draws: int = 0, sampling: Sampling = "popularity"):
        self.sampled = counts is not None
        self._drawn: tuple[Tensor, Tensor] | None = None
        if counts is None:
            return
        weights = np.ones(len(counts)) if sampling == "uniform" else (counts + 1.0) ** POPULARITY_EXPONENT
        expected = expected_counts(weights, draws)
        # Items that are certain come first: each is one whole unit of length.
        self._order = np.argsort(expected < 1.0, kind="stable")
        self._ends = np.cumsum(expected[self._order])
        self._log_expected = np.log(expected)
        self.draws = min(draws, len(counts))

    @classmethod
    def over(cls, n_items: int, rows: Rows, draws: int, sampling: Sampling) -> ItemSoftmax:
        """Over a catalogue of ``n_items``; ``draws`` 0, or as many as there are items, is all of it."""
        if draws == 0 or draws >= n_items:
            return cls()
        log = logger.info if is_first_process() else logger.debug
        log(
            "%s items: the softmax in training is over the target and %s items drawn each step "
            "(num_negatives; 0: over all items)",
            f"{n_items:,}",
            f"{draws:,}",
        )
        targets = rows.targets[rows.targets != NO_TARGET]
        return cls(np.bincount(targets, minlength=n_items), draws, sampling)

    def draw(self, device: torch.device) -> None:
        """Draw the items of one step, from torch's global CPU generator; nothing where all items count."""
        if not self.sampled:
            return
        places = np.arange(self.draws)
        points = places + torch.rand(self.draws, dtype=torch.float64).numpy()
        points = np.minimum(points, np.nextafter(places + 1.0, 0.0))
        found = np.searchsorted(self._ends, points, side="right")
        ids = self._order[np.minimum(found, len(self._order) - 1)]
        self._drawn = (
            torch.from_numpy(ids).to(device),
            torch.from_numpy(self._log_expected[ids].astype(np.float32)).to(device),
        )

    def of(self, model: SequenceEncoder, states_PD: Tensor) -> AllScores | DrawnScores:
        """The scores that ``model`` gives after each state."""
        if not self.sampled:
            return AllScores(model.score(states_PD))
        return DrawnScores(model, states_PD, self._drawn)


class AllScores:
    """Scores (P, N) of every item."""

    def __init__(self, scores_PN: Tensor):
        self.scores_PN = scores_PN

    def log_likelihood(self, targets_P: Tensor) -> Tensor:
        """log softmax at each target, (P,)."""
        return -F.cross_entropy(self.scores_PN, targets_P, reduction="none")

    def ranks(self, targets_P: Tensor) -> Tensor:
        """Place of each target among all items, from 1; (P,), without a gradient."""
        return rank_of(self.scores_PN.detach(), targets_P)

    def best_others(self, targets_P: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Score of each target (P,), and of the k best other items, best first, (P, k)."""
        own_P1 = self.scores_PN.gather(1, targets_P[:, None])
        others_PN = self.scores_PN.scatter(1, targets_P[:, None], -torch.inf)
        return own_P1[:, 0], others_PN.topk(min(k, others_PN.shape[1] - 1), dim=1).values

    def entropy(self) -> Tensor:
        """Entropy (P,) of the softmax, without a gradient."""
        log_p_PN = torch.log_softmax(self.scores_PN.detach(), dim=-1)
        return -(log_p_PN.exp() * log_p_PN).sum(dim=-1)


class DrawnScores:
    """The same figures of a catalogue too large for its scores to be kept.

    Args:
        model: encoder whose item table scores.
        states_PD: states, one a target.
        drawn: the step's items and the logarithm of their expected counts; ``None`` before the first draw.
    """

    def __init__(self, model: SequenceEncoder, states_PD: Tensor, drawn: tuple[Tensor, Tensor] | None):
        self.model, self.states_PD, self.drawn = model, states_PD, drawn

    def log_likelihood(self, targets_P: Tensor) -> Tensor:
        """Estimate of log softmax at each target, (P,); a target that was drawn counts once."""
        ids_M, log_expected_M = self._items()
        own_P, scores_PM = self.model.score_sampled(self.states_PD, targets_P, ids_M)
        corrected_PM = (scores_PM - log_expected_M).masked_fill(ids_M == targets_P[:, None], -torch.inf)
        return own_P - torch.logsumexp(torch.cat([own_P[:, None], corrected_PM], dim=1), dim=1)

    def ranks(self, targets_P: Tensor) -> Tensor:
        """Place of each target among all items, from 1; (P,), exact, without a gradient."""
        with torch.no_grad():
            own_P1 = self.model.score_pairs(self.states_PD, targets_P[:, None])
            above_P = torch.zeros_like(targets_P)
            for _, scores_PC in self._chunks(targets_P):
                above_P += (scores_PC > own_P1).sum(dim=1)
        return 1 + above_P

    def best_others(self, targets_P: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Score of each target (P,), and of the k best other items, best first, (P, k); exact."""
        k = min(k, self.model.n_items - 1)
        with torch.no_grad():
            values_PK = self.states_PD.new_full((len(targets_P), 0), -torch.inf)
            ids_PK = targets_P.new_zeros((len(targets_P), 0))
            for start, scores_PC in self._chunks(targets_P):
                top = scores_PC.topk(min(k, scores_PC.shape[1]), dim=1)
                values_PK = torch.cat([values_PK, top.values], dim=1)
                ids_PK = torch.cat([ids_PK, top.indices + start], dim=1)
                kept = values_PK.topk(min(k, values_PK.shape[1]), dim=1)
                values_PK, ids_PK = kept.values, ids_PK.gather(1, kept.indices)
        scores = self.model.score_pairs(self.states_PD, torch.cat([targets_P[:, None], ids_PK], dim=1))
        return scores[:, 0], scores[:, 1:]

    def entropy(self) -> Tensor:
        """Estimate of the softmax's entropy (P,) from the drawn items, without a gradient."""
        with torch.no_grad():
            ids_M, log_expected_M = self._items()
            scores_PM = self.model.score(self.states_PD, ids_M)
            log_sum_P1 = torch.logsumexp(scores_PM - log_expected_M, dim=1, keepdim=True)
            weights_PM = (scores_PM - log_expected_M - log_sum_P1).exp()
            return -(weights_PM * (scores_PM - log_sum_P1)).sum(dim=1)

    def _items(self) -> tuple[Tensor, Tensor]:
        if self.drawn is None:
            raise RuntimeError("draw() comes before a sampled softmax")
        return self.drawn

    def _chunks(self, targets_P: Tensor) -> Iterator[tuple[int, Tensor]]:
        """(first item, scores (P, C)) of each chunk of items; −inf at the target itself."""
        pick = torch.arange(len(targets_P), device=targets_P.device)
        for start in range(0, self.model.n_items, ITEMS_PER_CHUNK):
            items = torch.arange(
                start, min(start + ITEMS_PER_CHUNK, self.model.n_items), device=targets_P.device
            )
            scores_PC = self.model.score(self.states_PD, items)
            inside_P = (targets_P >= start) & (targets_P < start + len(items))
            scores_PC[pick[inside_P], targets_P[inside_P] - start] = -torch.inf
            yield start, scores_PC


def expected_counts(weights: np.ndarray, draws: int) -> np.ndarray:
    """How often each item is drawn on average: in proportion to ``weights``, at most 1, ``draws`` in all.

    Args:
        weights: float (N,), positive.
        draws: M; from N on every item is certain.
    """
    expected = np.ones(len(weights))
    if draws >= len(weights):
        return expected
    certain = np.zeros(len(weights), bool)
    while True:
        scale = (draws - certain.sum()) / weights[~certain].sum()
        expected[~certain] = scale * weights[~certain]
        above = ~certain & (expected >= 1.0)
        if not above.any():
            return expected
        certain |= above
        expected[above] = 1.0
