"""The order in which samples are seen: seeded, resumable, alike whatever the world size or accumulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

BLANK = -1
"""Stands in a micro-batch that holds no sample, so that every process takes the same number of steps."""
_BATCHES_SORTED_TOGETHER = 16


class BatchPlan:
    """Micro-batches of one epoch after another, for a ``DataLoader``'s ``batch_sampler``.

    The optimiser batches of an epoch depend on seed and epoch only. Rows of like length stand together:
    a shuffled epoch is cut into windows of a few batches and each window is sorted by length. An optimiser
    batch is then dealt out to ``micro_batches`` (processes × accumulation steps), neighbours together.

    Args:
        lengths: of each row, in tokens.
        weights: samples that each row holds.
        batch_size: samples of an optimiser batch (rows are not torn apart, so a batch may hold a few fewer).
        micro_batches: parts that it is dealt out to.
        seed: of the order.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[int],
        *,
        batch_size: int,
        micro_batches: int,
        seed: int,
    ):
        """Nothing is drawn yet."""
        self._lengths = np.asarray(lengths)
        self._weights = np.asarray(weights)
        self._batch_size = batch_size
        self._micro_batches = micro_batches
        self._seed = seed
        self.epoch = 0
        # The number of batches must not change from epoch to epoch: it is fixed by the total weight.
        self.batches_per_epoch = max(1, int(np.ceil(self._weights.sum() / batch_size)))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Micro-batches of an epoch, over all processes."""
        return self.batches_per_epoch * self._micro_batches

    def __iter__(self) -> Iterator[list[int]]:
        """Micro-batches of the current epoch; ``[BLANK]`` where there is no sample left to deal."""
        for batch in self.batches(self.epoch):
            cuts = np.searchsorted(
                np.cumsum(self._lengths[batch]),
                np.arange(1, self._micro_batches) * self._lengths[batch].sum() / self._micro_batches,
            )
            for part in np.split(batch, cuts):
                yield part.tolist() or [BLANK]

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Row indices of each optimiser batch of an epoch."""
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(len(self._lengths))
        window = self._batch_size * _BATCHES_SORTED_TOGETHER
        starts = np.concatenate([[0], np.cumsum(self._weights[order])[:-1]]) // window
        order = order[np.lexsort((order, self._lengths[order], starts))]
        share = np.cumsum(self._weights[order]) - self._weights[order] / 2
        which = np.minimum(
            (share * self.batches_per_epoch / self._weights.sum()).astype(np.int64), self.batches_per_epoch - 1
        )
        batches = np.split(order, np.flatnonzero(np.diff(which)) + 1)
        batches += [order[:0]] * (self.batches_per_epoch - len(batches))
        return [batches[i] for i in generator.permutation(len(batches))]
