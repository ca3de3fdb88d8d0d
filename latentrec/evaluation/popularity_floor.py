"""The floor of the gate: everyone gets the most bought items. Always there, whatever models are given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentrec.catalog import Catalogue
from latentrec.models import Ranking


class PopularityFloor:
    """Ranks items by interactions in the training period (``train_count``); a ``Recommender``."""

    def __init__(self, catalogue: Catalogue, name: str = "popularity"):
        self.name = name
        self.unscorable = np.zeros(catalogue.n_items, bool)
        self._order = catalogue.popularity_order
        self._counts = catalogue.train_counts.astype(np.float32)

    def rank(
        self,
        histories: Sequence[Sequence[int] | np.ndarray],
        k: int,
        *,
        exclude: Sequence[Sequence[int] | np.ndarray] | None = None,
    ) -> Ranking:
        """The k most bought items, the same for every user but for the items left out."""
        k = min(k, len(self._order))
        items = np.tile(self._order[:k], (len(histories), 1))
        if exclude is not None:
            for row, left_out in enumerate(exclude):
                if len(left_out):
                    head = self._order[: k + len(left_out)]
                    kept = head[~np.isin(head, left_out)][:k]
                    items[row] = -1
                    items[row, : len(kept)] = kept
        scores = np.where(items >= 0, self._counts[items], -np.inf).astype(np.float32)
        return Ranking(items, scores)
