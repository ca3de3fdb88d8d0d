"""Score one model on one split: ranked items of every sample, and ranks on items and on titles."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from latentrec.catalog import Catalogue
from latentrec.core import UserError, progress
from latentrec.data import Samples
from latentrec.evaluation.evaluate_config import KS
from latentrec.metrics import (
    first_of_each_group,
    hit_rate_at_k,
    mrr_at_k,
    ndcg_at_k,
    rank_of_target,
    repeat_share_at_k,
)
from latentrec.models import Recommender

K_MAX = max(KS)
METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f"hr_at_{k}": partial(hit_rate_at_k, k=k) for k in KS},
    **{f"ndcg_at_{k}": partial(ndcg_at_k, k=k) for k in KS},
    f"mrr_at_{K_MAX}": partial(mrr_at_k, k=K_MAX),
}


@dataclass(frozen=True)
class ModelScores:
    """What one model did on the samples, in the samples' order.

    Attributes:
        name: of the model, unique in the evaluation.
        ranked: int32 (S, L) item ids, −1 pads; long enough to hold ``K_MAX`` distinct titles.
        scores: float32 (S, L).
        ranked_titles: int32 (S, K_MAX) title ids, repeats dropped.
        item_ranks, title_ranks: int64 (S,), 0 where the target is not among the ranked.
        unscorable: bool (S,), the model cannot rank this target (it ranks last).
        repeat_share: float64 (S,), share of the first ``K_MAX`` items that stand in the user's history.
        seconds: wall time of scoring all samples in batches.
    """

    name: str
    ranked: np.ndarray
    scores: np.ndarray
    ranked_titles: np.ndarray
    item_ranks: np.ndarray
    title_ranks: np.ndarray
    unscorable: np.ndarray
    repeat_share: np.ndarray
    seconds: float
    notes: list[str] = field(default_factory=list)

    def values(self, metric: str) -> np.ndarray:
        """float64 (S,) of a metric: title level, or item level with the prefix ``item_``."""
        if metric.startswith("item_"):
            return METRICS[metric.removeprefix("item_")](self.item_ranks)
        return METRICS[metric](self.title_ranks)


def list_length(catalogue: Catalogue) -> int:
    """Items that a list must hold to span ``K_MAX`` distinct titles for certain (or the whole catalogue)."""
    sizes = np.sort(np.bincount(catalogue.title_ids, minlength=max(catalogue.n_titles, 1)))[::-1]
    return int(min(catalogue.n_items, max(K_MAX, sizes[: K_MAX - 1].sum() + 1)))


def score_model(
    recommender: Recommender,
    samples: Samples,
    catalogue: Catalogue,
    *,
    batch_size: int = 64,
    excluded: Callable[[np.ndarray], list[np.ndarray]] | None = None,
) -> ModelScores:
    """Rank the catalogue for every sample; batches hold histories of like length.

    Args:
        recommender: to score.
        samples: to rank for.
        catalogue: whose items are ranked.
        batch_size: samples ranked together.
        excluded: indices of samples → items that their lists must not hold; ``None``: any item may stand.

    Raises:
        UserError: the model returned an item that is not in the catalogue, or one twice.
    """
    length = list_length(catalogue)
    histories = samples.histories()
    ranked = np.full((len(samples), length), -1, np.int32)
    scores = np.full((len(samples), length), -np.inf, np.float32)
    order = np.argsort([len(history) for history in histories], kind="stable")
    start = time.perf_counter()
    with progress(f"scoring {recommender.name}", len(samples), "users") as bar:
        for begin in range(0, len(order), batch_size):
            batch = order[begin : begin + batch_size]
            chosen = [histories[index] for index in batch]
            result = recommender.rank(chosen, length, exclude=excluded(batch) if excluded else None)
            width = min(length, result.item_ids.shape[1])
            ranked[batch, :width] = result.item_ids[:, :width]
            scores[batch, :width] = result.scores[:, :width]
            bar.update(len(batch))
    seconds = time.perf_counter() - start
    _check_lists(recommender.name, ranked, catalogue.n_items)
    ranked_titles = first_of_each_group(ranked, catalogue.title_ids, K_MAX)
    return ModelScores(
        name=recommender.name,
        ranked=ranked,
        scores=scores,
        ranked_titles=ranked_titles,
        item_ranks=rank_of_target(ranked, samples.targets),
        title_ranks=rank_of_target(ranked_titles, catalogue.title_ids[samples.targets]),
        unscorable=np.asarray(recommender.unscorable, bool)[samples.targets],
        repeat_share=repeat_share_at_k(ranked, histories, K_MAX),
        seconds=seconds,
    )


def shown_lengths(scores: ModelScores, title_ids: np.ndarray) -> np.ndarray:
    """int64 (S,): how much of each list the predictions file keeps.

    The first ``K_MAX`` items, and on to the item that brings the ``K_MAX``-th distinct title.
    """
    filled = (scores.ranked >= 0).sum(axis=1)
    last_title = scores.ranked_titles[:, -1]
    titles = np.where(scores.ranked >= 0, title_ids[scores.ranked], -2)
    place = (titles == last_title[:, None]).argmax(axis=1) + 1
    return np.where(last_title >= 0, np.minimum(filled, np.maximum(K_MAX, place)), filled)


def _check_lists(name: str, ranked: np.ndarray, n_items: int) -> None:
    if ranked.size == 0:
        return
    if ranked.max() >= n_items:
        raise UserError(
            f"model {name} ranked item {ranked.max()}, the catalogue has {n_items} items",
            code="evaluation.bad_ranking",
        )
    in_order = np.sort(ranked, axis=1)
    repeated = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)
    if repeated.any():
        row = int(repeated.any(axis=1).argmax())
        raise UserError(
            f"model {name} ranked an item twice for sample {row}; its lists cannot be evaluated",
            code="evaluation.bad_ranking",
        )
