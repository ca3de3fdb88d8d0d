"""What every recommender can do, whatever is inside: rank the catalogue's items after a history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """Ranked items of a batch of users, best first.

    Attributes:
        item_ids: int32 (B, k); −1 where a list is shorter than k.
        scores: float32 (B, k); −inf where ``item_ids`` is −1. Comparable within one list only.
    """

    item_ids: np.ndarray
    scores: np.ndarray


class Recommender(Protocol):
    """Ranks items of the catalogue that it was loaded with.

    Item ids are those of that catalogue (today's), whatever the model was trained on; models map them by
    ``item_key`` or by title inside.

    Attributes:
        name: short name for tables.
        unscorable: bool (n_items,), items that the model cannot rank (unseen by an ID-based model).
    """

    name: str
    unscorable: np.ndarray

    def rank(
        self,
        histories: Sequence[Sequence[int] | np.ndarray],
        k: int,
        *,
        exclude: Sequence[Sequence[int] | np.ndarray] | None = None,
    ) -> Ranking:
        """The k best items after each history (oldest first), leaving out each user's ``exclude`` items."""
        ...
