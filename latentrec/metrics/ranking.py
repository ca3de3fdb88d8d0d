"""Ranking metrics as pure functions of ranks; one value a sample, so that any mean, slice or test can follow.

A *rank* is 1 for the best place, 0 where the target is not in the list. With one relevant item a sample,
DCG's ideal is 1 and NDCG@k = 1 / log2(1 + rank) (Järvelin & Kekäläinen 2002), recall@k = HR@k.
"""

from __future__ import annotations

import numpy as np

PADDING = -1


def rank_of_target(ranked: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Place of each target in its list, counted from 1; the *first* place where it occurs.

    Args:
        ranked: int (S, L), best first; −1 pads short lists.
        targets: int (S,), never −1.

    Returns:
        int64 (S,); 0 where the target is not in the list.
    """
    if ranked.shape[1] == 0:
        return np.zeros(len(targets), np.int64)
    found = ranked == np.asarray(targets)[:, None]
    return np.where(found.any(axis=1), found.argmax(axis=1) + 1, 0).astype(np.int64)


def hit_rate_at_k(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 where the target stands among the first k, else 0; float64 (S,)."""
    return ((ranks > 0) & (ranks <= k)).astype(np.float64)


def ndcg_at_k(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(1 + rank) where the target stands among the first k, else 0; float64 (S,)."""
    return hit_rate_at_k(ranks, k) / np.log2(1.0 + np.maximum(ranks, 1))


def ranking_figures(ranks: np.ndarray, k: int = 10) -> dict[str, float]:
    """Means over samples, as validation reports them: ``ndcg_at_<k>`` and ``hr_at_<k>``."""
    return {
        f"ndcg_at_{k}": float(ndcg_at_k(ranks, k).mean()),
        f"hr_at_{k}": float(hit_rate_at_k(ranks, k).mean()),
    }


def mrr_at_k(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 / rank where the target stands among the first k, else 0; float64 (S,)."""
    return hit_rate_at_k(ranks, k) / np.maximum(ranks, 1)


def first_of_each_group(ranked: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """Turn lists of items into lists of groups (titles): repeats dropped, order of first appearance kept.

    Args:
        ranked: int (S, L) item ids, −1 pads.
        groups: int (n_items,) group (``title_id``) of each item.
        k: length of the lists wanted.

    Returns:
        int32 (S, k) group ids, −1 where a list holds fewer than k groups.
    """
    n_samples, length = ranked.shape
    result = np.full((n_samples, k), PADDING, np.int32)
    if n_samples == 0 or length == 0:
        return result
    mapped = np.where(ranked >= 0, groups[ranked], PADDING).astype(np.int64)
    order = np.argsort(mapped, axis=1, kind="stable")
    in_order = np.take_along_axis(mapped, order, axis=1)
    is_first = np.ones((n_samples, length), bool)
    is_first[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    is_first &= in_order >= 0
    keep = np.zeros((n_samples, length), bool)
    np.put_along_axis(keep, order, is_first, axis=1)
    place = np.cumsum(keep, axis=1) - 1
    keep &= place < k
    rows, columns = np.nonzero(keep)
    result[rows, place[rows, columns]] = mapped[rows, columns]
    return result


def coverage_at_k(ranked: np.ndarray, n_items: int, k: int) -> float:
    """Share of the catalogue that is recommended to anyone within the first k."""
    shown = ranked[:, :k]
    return len(np.unique(shown[shown >= 0])) / n_items if n_items else 0.0


def repeat_share_at_k(ranked: np.ndarray, histories: list[np.ndarray], k: int) -> np.ndarray:
    """Share of each user's first k recommendations that stand in the user's own history; float64 (S,)."""
    shown = ranked[:, :k]
    if not len(shown):
        return np.zeros(0)
    lengths = np.array([len(history) for history in histories])
    width = max(int(lengths.max(initial=0)), 1)
    padded = np.full((len(histories), width), -2, np.int64)
    padded[np.arange(width) < lengths[:, None]] = np.concatenate([np.asarray(h) for h in histories])
    repeats = (shown[:, :, None] == padded[:, None, :]).any(axis=2).sum(axis=1)
    return repeats / np.maximum((shown >= 0).sum(axis=1), 1)
