"""Training samples as rows for a causal encoder: one user, one row, every position a target.

``train.parquet`` holds one sample a prefix, so a user with n targets is read n times. A causal encoder needs
one pass: its state at position p is that of the prefix ending there. The targets are exactly the samples'
targets, each once; no other item is ever a target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentrec.data import Samples
from latentrec.models.sequential.noise import Part

NO_TARGET = -1
POOL_BATCHES = 32
"""Rows are sorted by length within pools of so many batches: enough to leave little padding."""


@dataclass(frozen=True)
class Rows:
    """Input sequences back to back (CSR) with the target of each position.

    Attributes:
        offsets: int64 (R + 1,).
        items: int64, the inputs.
        targets: int64, same shape: what follows each position, or −1 where that is no training target.
    """

    offsets: np.ndarray
    items: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 (R,), one value a row."""
        return np.diff(self.offsets)

    @property
    def n_targets(self) -> int:
        """Number of positions that count."""
        return int((self.targets != NO_TARGET).sum())

    @property
    def targets_per_row(self) -> np.ndarray:
        """int64 (R,), one value a row."""
        return np.add.reduceat((self.targets != NO_TARGET).astype(np.int64), self.offsets[:-1])


@dataclass(frozen=True)
class Batch:
    """Rows padded to the longest of the batch; ``targets_BL`` is −1 where a position does not count."""

    items_BL: Tensor
    targets_BL: Tensor
    lengths_B: Tensor

    @property
    def counted_BL(self) -> Tensor:
        """bool (B, L): the positions that are training targets."""
        return self.targets_BL != NO_TARGET


def pack_by_user(samples: Samples, max_length: int) -> Rows:
    """One row per chain of a user's samples; longer chains become overlapping windows.

    Within a window of ``max_length`` inputs, only the newest half are targets (all, in the first window), so
    every target keeps at least half a window of context and is counted once.
    """
    order = np.argsort(samples.user_ids, kind="stable")
    samples = samples.subset(order)
    starts = np.flatnonzero(~_continues(samples))
    items: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for first, stop in zip(starts, [*starts[1:], len(samples)], strict=True):
        known = samples.history(int(first)).astype(np.int64)
        if not len(known):
            continue
        sequence = np.concatenate([known, samples.targets[first:stop].astype(np.int64)])
        labels = sequence[1:].copy()
        labels[: len(known) - 1] = NO_TARGET
        for start, fresh, end in _windows(len(labels), max_length):
            window = labels[start:end].copy()
            window[: fresh - start] = NO_TARGET
            if (window != NO_TARGET).any():
                items.append(sequence[start:end])
                targets.append(window)
    return _stack(items, targets)


def one_row_per_sample(samples: Samples, max_length: int) -> Rows:
    """The published layout: each sample a row of its own with one target, at its last position."""
    items = [samples.history(index)[-max_length:].astype(np.int64) for index in range(len(samples))]
    targets = []
    for history, target in zip(items, samples.targets, strict=True):
        row = np.full(len(history), NO_TARGET, np.int64)
        row[-1:] = target
        targets.append(row)
    keep = [index for index, history in enumerate(items) if len(history)]
    return _stack([items[index] for index in keep], [targets[index] for index in keep])


def epoch_batches(rows: Rows, targets_per_batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row indices of each batch of one epoch: shuffled, length-bucketed, about equal in targets.

    A function of (rows, seed, epoch) alone, so that a resumed run walks the same batches.
    """
    generator = np.random.default_rng([seed, epoch])
    shuffled = generator.permutation(len(rows))
    counts = rows.targets_per_row
    pool = max(1, round(POOL_BATCHES * targets_per_batch / max(1.0, counts.mean())))
    batches: list[np.ndarray] = []
    for start in range(0, len(shuffled), pool):
        chunk = shuffled[start : start + pool]
        chunk = chunk[np.argsort(rows.lengths[chunk], kind="stable")]
        filled = np.cumsum(counts[chunk])
        n_batches = max(1, round(filled[-1] / targets_per_batch))
        cuts = np.searchsorted(filled, filled[-1] * np.arange(1, n_batches) / n_batches)
        batches += [part for part in np.split(chunk, cuts) if len(part)]
    return [batches[index] for index in generator.permutation(len(batches))]


def collate(rows: Rows, indices: np.ndarray, padding: int, device: torch.device | str = "cpu") -> Batch:
    """Pad the rows at ``indices`` on the right."""
    lengths = rows.lengths[indices]
    columns = np.arange(lengths.max())
    inside = columns < lengths[:, None]
    where = np.where(inside, rows.offsets[indices][:, None] + columns, 0)
    items = np.where(inside, rows.items[where], padding)
    targets = np.where(inside, rows.targets[where], NO_TARGET)
    return Batch(*(torch.from_numpy(array).to(device) for array in (items, targets, lengths)))


def rows_in(batch: Batch, part: Part) -> Batch:
    """The rows of a batch that one process computes, as wide as the batch; targets only if they count."""
    rows = part.rows.to(batch.items_BL.device)
    targets_BL = batch.targets_BL[rows]
    return Batch(
        items_BL=batch.items_BL[rows],
        targets_BL=targets_BL if part.counts else torch.full_like(targets_BL, NO_TARGET),
        lengths_B=batch.lengths_B[rows],
    )


def _continues(samples: Samples) -> np.ndarray:
    """bool (S,): whether sample s reads exactly what sample s − 1 read, plus its target."""
    count = len(samples)
    result = np.zeros(count, bool)
    if count < 2:
        return result
    lengths = np.diff(samples.history_offsets)
    before, now = lengths[:-1], lengths[1:]
    longest = lengths.max()
    grown = np.minimum(before + 1, longest)
    candidate = (samples.user_ids[1:] == samples.user_ids[:-1]) & (now == grown) & (now > 0)
    ends = samples.history_offsets[1:]
    for index in np.flatnonzero(candidate):
        overlap = now[index] - 1
        end, next_end = ends[index], ends[index + 1]
        result[index + 1] = samples.history_items[next_end - 1] == samples.targets[index] and np.array_equal(
            samples.history_items[next_end - 1 - overlap : next_end - 1],
            samples.history_items[end - overlap : end],
        )
    return result


def _windows(length: int, max_length: int) -> Iterator[tuple[int, int, int]]:
    """(first input, first position that counts, end) of each window over ``length`` positions."""
    end = min(length, max_length)
    yield 0, 0, end
    stride = max(1, max_length // 2)
    while end < length:
        fresh, end = end, min(length, end + stride)
        yield end - max_length, fresh, end


def _stack(items: list[np.ndarray], targets: list[np.ndarray]) -> Rows:
    lengths = np.array([len(row) for row in items], dtype=np.int64)
    empty = np.zeros(0, np.int64)
    return Rows(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.concatenate(items) if items else empty,
        targets=np.concatenate(targets) if targets else empty,
    )
