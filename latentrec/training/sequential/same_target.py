"""Another training prefix with the same target, found by a group-by: O(S log S) once, O(1) a draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentrec.training.sequential.rows import NO_TARGET, Rows

LENGTH_BUCKETS = 4
PREFIXES_PER_BUCKET = 25
"""Smaller buckets cost more in operations than they save in padding."""


@dataclass(frozen=True)
class SameTarget:
    """Positions of all rows grouped by target.

    Attributes:
        rows: the training rows.
        row_of: int64, row of each flat position.
        order: int64, flat positions that count, sorted by target.
        place: int64, for each flat position its index in ``order`` (−1 where it does not count).
        first, size: int64, for each flat position where its group begins in ``order`` and how big it is.
    """

    rows: Rows
    row_of: np.ndarray
    order: np.ndarray
    place: np.ndarray
    first: np.ndarray
    size: np.ndarray

    @classmethod
    def build(cls, rows: Rows) -> SameTarget:
        """Group the positions of ``rows``."""
        counted = np.flatnonzero(rows.targets != NO_TARGET)
        order = counted[np.argsort(rows.targets[counted], kind="stable")]
        sorted_targets = rows.targets[order]
        _, starts, inverse, sizes = np.unique(
            sorted_targets, return_index=True, return_inverse=True, return_counts=True
        )
        place, first, size = (np.full(len(rows.targets), -1, np.int64) for _ in range(3))
        place[order] = np.arange(len(order))
        first[order] = starts[inverse]
        size[order] = sizes[inverse]
        row_of = np.repeat(np.arange(len(rows)), rows.lengths)
        return cls(rows, row_of, order, place, first, size)

    def positions_of(self, indices: np.ndarray) -> np.ndarray:
        """Flat positions that count of the rows at ``indices``, in the order of a collated batch's mask."""
        starts, lengths = self.rows.offsets[indices], self.rows.lengths[indices]
        ends = np.cumsum(lengths)
        flat = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
        return flat[self.rows.targets[flat] != NO_TARGET]

    def draw(self, positions: np.ndarray) -> np.ndarray:
        """For each position another one with the same target, uniformly; itself where there is no other.

        Random numbers come from torch's global CPU generator.
        """
        size, first = self.size[positions], self.first[positions]
        jump = 1 + (torch.rand(len(positions)).numpy() * np.maximum(size - 1, 1)).astype(np.int64)
        jump = np.minimum(jump, np.maximum(size - 1, 1))
        partner = first + (self.place[positions] - first + jump) % size
        return self.order[np.where(size > 1, partner, self.place[positions])]

    def buckets(self, positions: np.ndarray, padding: int) -> list[tuple[np.ndarray, Tensor, Tensor]]:
        """The prefixes that end at ``positions``, in a few batches of like length.

        Returns:
            For each batch: indices into ``positions``, items (B, L), lengths (B,).
        """
        starts = self.rows.offsets[self.row_of[positions]]
        lengths = positions - starts + 1
        count = min(LENGTH_BUCKETS, max(1, len(positions) // PREFIXES_PER_BUCKET))
        parts = np.array_split(np.argsort(lengths, kind="stable"), count)
        batches = []
        for part in parts:
            columns = np.arange(lengths[part].max())
            inside = columns < lengths[part][:, None]
            where = np.where(inside, starts[part][:, None] + columns, 0)
            items = np.where(inside, self.rows.items[where], padding)
            batches.append((part, torch.from_numpy(items), torch.from_numpy(lengths[part])))
        return batches
