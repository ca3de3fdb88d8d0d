"""The order in which samples are seen: seeded, resumable, alike whatever the world size or accumulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

BLANK = -1
"""Stands in a micro-batch that holds no sample, so that every process takes the same number of steps."""
_BATCHES_SORTED_TOGETHER = 16


class LengthGroupedBatchSampler:
    """Micro-batches of one epoch after another, for a ``DataLoader``'s ``batch_sampler``.

    The optimizer batches of an epoch depend on seed and epoch only. Rows of like length stand together:
    a shuffled epoch is cut into windows of a few batches and each window is sorted by length. An optimizer
    batch is then split into ``micro_batches`` (processes × accumulation steps) of neighbors.

    Args:
        lengths: of each row, in tokens: what a process's share is measured in.
        weights: samples that each row holds.
        batch_size: samples of an optimizer batch (rows are not split, so a batch may hold a few fewer).
        micro_batches: parts that it is split into.
        seed: of the order.
        alike: rows of the same value stand together (rows with as many branches, say), before length.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[int],
        *,
        batch_size: int,
        micro_batches: int,
        seed: int,
        alike: Sequence[int] | None = None,
    ):
        """See the class. The order of an epoch is drawn when it is iterated."""
        self.rows = len(lengths)
        self._alike = np.zeros(len(lengths), np.int64) if alike is None else np.asarray(alike)
        self._lengths = np.asarray(lengths)
        self._weights = np.asarray(weights)
        self._batch_size = batch_size
        self._micro_batches = micro_batches
        self._seed = seed
        self.epoch = 0
        # The number of batches must not change from epoch to epoch: it is fixed by the total weight.
        self.batches_per_epoch = max(1, int(np.ceil(self._weights.sum() / batch_size)))
        self.steps_per_epoch = self.batches_per_epoch

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
        """Row indices of each optimizer batch of an epoch."""
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(len(self._lengths))
        window = self._batch_size * _BATCHES_SORTED_TOGETHER
        starts = np.concatenate([[0], np.cumsum(self._weights[order])[:-1]]) // window
        order = order[np.lexsort((order, self._lengths[order], self._alike[order], starts))]
        share = np.cumsum(self._weights[order]) - self._weights[order] / 2
        which = np.minimum(
            (share * self.batches_per_epoch / self._weights.sum()).astype(np.int64),
            self.batches_per_epoch - 1,
        )
        batches = np.split(order, np.flatnonzero(np.diff(which)) + 1)
        batches += [order[:0]] * (self.batches_per_epoch - len(batches))
        return [batches[i] for i in generator.permutation(len(batches))]


class LengthGroupedPromptSampler(Sampler[int]):
    """Prompt indices for trl's GRPO: each repeated for its copies, each batch repeated while it is re-used.

    Every optimizer batch has the same number of prompts; what is left over sits an epoch out (another part
    each epoch). Prompts of like length stand together.

    Args:
        lengths: of each prompt, in tokens.
        prompts_per_batch: prompts of an optimizer batch, over all processes.
        copies: K.
        repeats: how often a batch is asked for (accumulation × iterations).
        iterations: optimizer steps that one batch serves.
        seed: of the order.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        prompts_per_batch: int,
        copies: int,
        repeats: int,
        iterations: int,
        seed: int,
    ):
        """See the class. The order of an epoch is drawn when it is iterated."""
        self._lengths = np.asarray(lengths)
        self._prompts = prompts_per_batch
        self._copies = copies
        self._repeats = repeats
        self._seed = seed
        self._batches_per_epoch = len(self._lengths) // prompts_per_batch
        self.epoch = 0
        self.steps_per_epoch = self._batches_per_epoch * iterations

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Indices of an epoch, repeats included."""
        return self._batches_per_epoch * self._prompts * self._copies * self._repeats

    def __iter__(self) -> Iterator[int]:
        """Indices of the current epoch."""
        for batch in self.batches(self.epoch):
            for _ in range(self._repeats):
                yield from np.repeat(batch, self._copies).tolist()

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Prompt indices of each optimizer batch of an epoch."""
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(len(self._lengths))[: self._batches_per_epoch * self._prompts]
        window = np.arange(len(order)) // (self._prompts * _BATCHES_SORTED_TOGETHER)
        order = order[np.lexsort((order, self._lengths[order], window))]
        batches = order.reshape(self._batches_per_epoch, self._prompts)
        return [batches[i] for i in generator.permutation(len(batches))]


def training_order(n_samples: int, n_steps: int, per_step: int, seed: int) -> np.ndarray:
    """Indices of the samples of every step, int64 (n_steps × per_step,): one shuffle an epoch, by ``seed``.

    The trainer reads them in sequence as one epoch, so where a resumed run stands is a count and no hidden
    state of a sampler.
    """
    rng = np.random.default_rng(seed)
    epochs = -(-n_steps * per_step // n_samples)
    return np.concatenate([rng.permutation(n_samples) for _ in range(epochs)])[: n_steps * per_step]
