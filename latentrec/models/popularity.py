"""Popularity, overall or recent: the floor that every model has to clear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from latentrec.catalog import ITEMS_FILE, Catalogue
from latentrec.core import UserError
from latentrec.models.model_directory import read_model
from latentrec.models.recommender import Ranking
from latentrec.models.top_k import Histories, mask_items, stack_rankings, top_items

SCORES_FILE = "popularity.safetensors"
CHUNK = 4096
_SECONDS_PER_DAY = 86_400


class Popularity:
    """Ranks every user's list by how often each item was bought in the training period.

    Attributes:
        name: for tables.
        unscorable: bool (n_items,), items of today's catalogue that training did not know; they rank last.
    """

    def __init__(self, scores: np.ndarray, unscorable: np.ndarray | None = None, name: str = "popularity"):
        self.name = name
        self.scores = np.asarray(scores, dtype=np.float32)
        self.unscorable = np.zeros(len(self.scores), bool) if unscorable is None else unscorable

    @classmethod
    def load(cls, model_dir: str | Path, catalogue: Catalogue, *, name: str | None = None) -> Popularity:
        """Read a model directory and map its counts to today's catalogue by ``item_key``.

        Raises:
            UserError: not a finished popularity model.
        """
        directory = Path(model_dir)
        info, _ = read_model(directory)
        if info.system != "popularity":
            raise UserError(
                f"{directory} holds a {info.system} model, expected popularity", code="model.other_kind"
            )
        trained = Catalogue.read(directory / ITEMS_FILE)
        here = catalogue.item_map_from(trained)
        scores = np.zeros(catalogue.n_items, np.float32)
        unscorable = np.ones(catalogue.n_items, bool)
        scores[here[here >= 0]] = load_file(directory / SCORES_FILE)["scores"][here >= 0]
        unscorable[here[here >= 0]] = False
        return cls(scores, unscorable, name or info.system)

    def save(self, directory: Path) -> None:
        """Write the scores into a model directory that is being made."""
        save_file({"scores": self.scores}, directory / SCORES_FILE)

    def item_logits(self, histories: Histories) -> np.ndarray:
        """float32 (B, n_items): log of the smoothed counts, the same for every user."""
        return np.tile(np.log(self.scores + 1.0), (len(histories), 1))

    def rank(
        self, histories: Histories, k: int, *, exclude: Sequence[Sequence[int] | np.ndarray] | None = None
    ) -> Ranking:
        """The k most popular items, leaving out each user's ``exclude``; equal counts by item id."""
        parts = []
        for start in range(0, len(histories), CHUNK):
            rows = len(histories[start : start + CHUNK])
            scores_BN = torch.from_numpy(self.scores).repeat(rows, 1)
            if exclude is not None:
                mask_items(scores_BN, exclude[start : start + CHUNK])
            parts.append(_top_popular(scores_BN, k))
        return stack_rankings(parts, k)


def count_items(
    items: np.ndarray, timestamps: np.ndarray, n_items: int, *, days: float, train_end: int
) -> np.ndarray:
    """float32 (n_items,): events per item within the last ``days`` before ``train_end`` (UTC seconds)."""
    recent = timestamps > train_end - days * _SECONDS_PER_DAY
    return np.bincount(items[recent], minlength=n_items).astype(np.float32)


def _top_popular(scores_BN: torch.Tensor, k: int) -> Ranking:
    """Ties are the rule among counts, so the cut itself must respect item ids: subtract a rank below 1."""
    n_items = scores_BN.shape[1]
    order = torch.arange(n_items, dtype=torch.float64) / (n_items + 1)
    ranking = top_items(scores_BN.double() - order, k)
    counts = np.ceil(ranking.scores).astype(np.float32)
    return Ranking(item_ids=ranking.item_ids, scores=counts)
