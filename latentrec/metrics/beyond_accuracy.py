"""What lists are like besides right or wrong: novelty, diversity, popularity bias, calibration, exposure.

Pure functions of ranked item ids. ``ranked`` is int (S, L), best first, −1 pads; per-sample functions give
float64 (S,), so that any mean, interval or group of users can follow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def novelty_at_k(ranked: np.ndarray, train_counts: np.ndarray, k: int) -> np.ndarray:
    """Mean self-information −log2 p(item) of the first k, in bits (Zhou et al. 2010); 0 for an empty list.

    p is an item's share of the training interactions, smoothed by one interaction an item.
    """
    counts = np.asarray(train_counts, np.float64) + 1.0
    return _mean_of_items(ranked, -np.log2(counts / counts.sum()), k)


def popularity_lift_at_k(
    ranked: np.ndarray, histories: Sequence[np.ndarray], train_counts: np.ndarray, k: int
) -> np.ndarray:
    """How much more popular the list is than the user's own history (Abdollahpouri et al. 2020).

    Mean training interactions of the first k over the mean of the history's items, minus 1: 0 is as popular
    as what the user buys, 1 is twice as popular. NaN where the list or the history is empty or the
    history's items were never bought in training.
    """
    counts = np.asarray(train_counts, np.float64)
    listed = _mean_of_items(ranked, counts, k)
    own = np.array([counts[history].mean() if len(history) else 0.0 for history in histories])
    known = (own > 0) & ((ranked[:, :k] >= 0).any(axis=1))
    return np.where(known, listed / np.where(own > 0, own, 1.0) - 1.0, np.nan)


def diversity_at_k(ranked: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """Share of the pairs among the first k that are of different groups (intra-list diversity).

    Args:
        ranked: lists.
        groups: int (n_items,), for example the brand or category of each item; −1 where it is unknown: such
            an item differs from every other.
        k: length of the lists.

    Returns:
        NaN where a list has fewer than two items.
    """
    shown = ranked[:, :k]
    there = shown >= 0
    kind = np.where(there, np.asarray(groups)[shown], -1)
    same = (kind[:, :, None] == kind[:, None, :]) & (kind >= 0)[:, :, None]
    same &= ~np.eye(shown.shape[1], dtype=bool)
    n_items = there.sum(axis=1)
    pairs = n_items * (n_items - 1)
    return np.where(pairs > 0, 1.0 - same.sum(axis=(1, 2)) / np.maximum(pairs, 1), np.nan)


def miscalibration_at_k(
    ranked: np.ndarray, histories: Sequence[np.ndarray], groups: np.ndarray, k: int
) -> np.ndarray:
    """Distance of the list's mix of groups from the history's, 0 (the same) to 1 (Steck 2018).

    The Jensen-Shannon divergence (base 2) of the shares of each group; items of an unknown group (−1) count
    as a group of their own. NaN where the list or the history is empty.
    """
    codes = np.unique(groups, return_inverse=True)[1] if len(groups) else np.zeros(0, int)
    n_groups = int(codes.max()) + 1 if len(codes) else 1
    shown = ranked[:, :k]
    rows, places = np.nonzero(shown >= 0)
    listed = _shares(rows, codes[shown[rows, places]], len(ranked), n_groups)
    owners = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    bought = np.concatenate([*(np.asarray(h, np.int64) for h in histories), np.zeros(0, np.int64)])
    own = _shares(owners, codes[bought], len(ranked), n_groups)
    middle = (listed + own) / 2
    divergence = (_kl(listed, middle) + _kl(own, middle)) / 2
    known = (listed.sum(axis=1) > 0) & (own.sum(axis=1) > 0)
    return np.where(known, divergence, np.nan)


def gini_at_k(ranked: np.ndarray, n_items: int, k: int) -> float:
    """Gini coefficient of how often each item of the catalogue is shown: 0 all alike, 1 only one item."""
    shown = ranked[:, :k]
    counts = np.sort(np.bincount(shown[shown >= 0], minlength=n_items).astype(np.float64))
    total = counts.sum()
    if n_items == 0 or total == 0:
        return 0.0
    return float((2 * np.arange(1, n_items + 1) - n_items - 1) @ counts / (n_items * total))


def long_tail_share_at_k(ranked: np.ndarray, in_tail: np.ndarray, k: int) -> np.ndarray:
    """Share of the first k that are long-tail items (``in_tail``: bool (n_items,)); 0 for an empty list."""
    return _mean_of_items(ranked, np.asarray(in_tail, np.float64), k)


def _mean_of_items(ranked: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    shown = ranked[:, :k]
    there = shown >= 0
    sums = np.where(there, values[shown], 0.0).sum(axis=1)
    return sums / np.maximum(there.sum(axis=1), 1)


def _shares(rows: np.ndarray, groups: np.ndarray, n_rows: int, n_groups: int) -> np.ndarray:
    """float64 (n_rows, n_groups): each row's share of each group; zeros for a row without entries."""
    counts = np.bincount(rows * n_groups + groups, minlength=n_rows * n_groups).reshape(n_rows, n_groups)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _kl(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of each row, base 2."""
    ratio = np.divide(first, second, out=np.ones_like(first), where=first > 0)
    return (first * np.log2(ratio)).sum(axis=1)
