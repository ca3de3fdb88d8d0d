"""What may stand in a user's list: everything, everything but the user's own items, or a few sampled items.

Lists are made in evaluation as they are in serving: where owned items are left out, they are all the items
that the user had before the target, not only those that the model's history still shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from latentrec.catalog import Catalogue
from latentrec.data import Dataset, Samples

Excluded = Callable[[np.ndarray], list[np.ndarray]]
"""Indices of samples → item ids that each of their lists must not hold."""


def owned_items(dataset: Dataset, samples: Samples) -> list[np.ndarray]:
    """Every item that each sample's user had before the target; the history without a table of events.

    Returns:
        One int32 array of distinct item ids a sample.
    """
    histories = samples.histories()
    if not (dataset.directory / "interactions.parquet").is_file():
        return [np.unique(history) for history in histories]
    table = dataset.interactions.select(["user_id", "item_id", "timestamp"])
    users, items, times = (table[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
    starts = np.searchsorted(users, samples.user_ids, side="left")
    ends = np.searchsorted(users, samples.user_ids, side="right")
    owned = []
    for index, history in enumerate(histories):
        begin, end = int(starts[index]), int(ends[index])
        place = _place_of(
            items[begin:end], times[begin:end], history, samples.targets[index], samples.timestamps[index]
        )
        owned.append(np.unique(np.concatenate([history, items[begin : begin + place]])).astype(np.int32))
    return owned


def _place_of(items: np.ndarray, times: np.ndarray, history: np.ndarray, target: int, time: int) -> int:
    """Place of a sample's target among its user's events; 0 where it is not found."""
    for place in np.flatnonzero((items == target) & (times == time)).tolist():
        if place >= len(history) and np.array_equal(items[place - len(history) : place], history):
            return place
    return 0


def leave_out(owned: Sequence[np.ndarray]) -> Excluded:
    """Lists without each user's own items."""
    return lambda indices: [owned[index] for index in indices]


def sampled_candidates(
    samples: Samples, owned: Sequence[np.ndarray], catalogue: Catalogue, n_negatives: int, seed: int
) -> Excluded:
    """Lists of the target and ``n_negatives`` uniformly drawn items that the user does not have.

    This is how many papers evaluate; its figures are far higher than those of ranking the catalogue, order
    models otherwise (Krichene and Rendle 2020), and are only comparable with the same number of negatives.
    Every model ranks the same candidates. Items that share the target's title are not drawn.
    """
    n_items = catalogue.n_items

    def excluded(indices: np.ndarray) -> list[np.ndarray]:
        lists = []
        for index in indices:
            target = int(samples.targets[index])
            rng = np.random.default_rng([seed, int(index)])
            free = np.ones(n_items, bool)
            free[owned[index]] = False
            free[catalogue.items_of_title(int(catalogue.title_ids[target]))] = False
            pool = np.flatnonzero(free)
            drawn = rng.choice(pool, size=min(n_negatives, len(pool)), replace=False)
            left = np.ones(n_items, bool)
            left[drawn] = left[target] = False
            lists.append(np.flatnonzero(left).astype(np.int32))
        return lists

    return excluded
