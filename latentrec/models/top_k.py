"""From a matrix of scores to ranked lists: what the ID-based recommenders share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentrec.models.recommender import Ranking

Histories = Sequence[Sequence[int] | np.ndarray]


def mask_items(scores_BN: Tensor, exclude: Histories) -> None:
    """Set each row's ``exclude`` items to −inf, in place; ids outside the matrix are ignored."""
    lengths = np.array([len(items) for items in exclude], dtype=np.int64)
    if not lengths.sum():
        return
    rows = np.repeat(np.arange(len(exclude)), lengths)
    columns = np.concatenate([np.asarray(items, dtype=np.int64) for items in exclude])
    known = (columns >= 0) & (columns < scores_BN.shape[1])
    device = scores_BN.device
    scores_BN[
        torch.from_numpy(rows[known]).to(device), torch.from_numpy(columns[known]).to(device)
    ] = -torch.inf


def top_items(scores_BN: Tensor, k: int) -> Ranking:
    """The k best columns of each row, best first; −inf columns are never listed.

    Equal scores among the k are listed by item id; which of several equal ones make the cut is open.
    """
    width = min(k, scores_BN.shape[1])
    # A stable sort of the k best only: topk alone leaves the order of equal scores open.
    ids_BK = torch.topk(scores_BN, width, dim=1).indices.sort(dim=1).values
    values_BK, order_BK = torch.sort(scores_BN.gather(1, ids_BK), dim=1, descending=True, stable=True)
    item_ids = np.full((len(scores_BN), k), -1, dtype=np.int32)
    scores = np.full((len(scores_BN), k), -np.inf, dtype=np.float32)
    scores[:, :width] = values_BK.float().cpu().numpy()
    item_ids[:, :width] = ids_BK.gather(1, order_BK).cpu().numpy()
    item_ids[~np.isfinite(scores)] = -1
    return Ranking(item_ids=item_ids, scores=scores)


def stack_rankings(parts: Sequence[Ranking], k: int) -> Ranking:
    """Put the chunks of one batch of users together again."""
    if not parts:
        return Ranking(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32))
    return Ranking(
        item_ids=np.concatenate([part.item_ids for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
    )
