"""LARES's pre-training as published: three forwards of separately padded prefixes, written out plainly.

What is left out of the published code is its plain waste (per-step log-probabilities that are never used, a
quadratic search for same-target sequences), so that the benchmark compares with the method and not with
accidents. Same model, same loss, same draws of steps; every prefix is padded to the model's length and every
one of the three passes runs on its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentrec.models.sequential import LARES, at_last_position, sample_steps
from latentrec.training.sequential.rows import Rows
from latentrec.training.sequential.spt import alignment


class SeparateForwards:
    """SPT's loss of a batch of samples (rows with one target each, at their end)."""

    def __init__(self, encoder: LARES, rows: Rows, mean_steps: int):
        self.encoder, self.rows, self.mean_steps = encoder, rows, mean_steps
        self.targets = rows.targets[rows.offsets[1:] - 1]
        self.samples_of: dict[int, np.ndarray] = {}
        order = np.argsort(self.targets, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(self.targets[order])) + 1):
            self.samples_of[int(self.targets[group[0]])] = group

    def __call__(self, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Loss of the samples at ``indices``."""
        items_BL, lengths_B = self._padded(indices)
        targets_B = torch.from_numpy(self.targets[indices])
        steps = sample_steps("poisson_lognormal", self.mean_steps)
        final_BD = at_last_position(self._forward(items_BL, steps)[-1], lengths_B)
        loss = F.cross_entropy(self.encoder.score(final_BD), targets_B)
        steps = sample_steps("poisson_lognormal", self.mean_steps)
        thoughts = self._forward(items_BL, steps)
        view_BD = at_last_position(thoughts[-1], lengths_B)
        other_BL, other_lengths_B = self._padded(self._partners(indices))
        other_BD = at_last_position(self._forward(other_BL, steps)[-1], other_lengths_B)
        loss = loss + 0.1 * alignment(view_BD, other_BD, 1.0, None)
        if steps > 1:
            earlier_BD = at_last_position(thoughts[int(torch.randint(steps - 1, ()))], lengths_B)
            loss = loss + 0.5 * alignment(view_BD, earlier_BD, 1.0, None)
        return loss, {}

    def _forward(self, items_BL: Tensor, steps: int) -> list[Tensor]:
        return self.encoder.trajectory(self.encoder.prelude(items_BL), steps)

    def _padded(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        items = np.full((len(indices), self.encoder.max_length), self.encoder.n_items, np.int64)
        for row, index in enumerate(indices):
            history = self.rows.items[self.rows.offsets[index] : self.rows.offsets[index + 1]]
            items[row, : len(history)] = history
        return torch.from_numpy(items), torch.from_numpy(self.rows.lengths[indices])

    def _partners(self, indices: np.ndarray) -> np.ndarray:
        groups = [self.samples_of[int(self.targets[index])] for index in indices]
        draws = torch.rand(len(groups)).tolist()
        return np.array([group[int(draw * len(group))] for group, draw in zip(groups, draws, strict=True)])
