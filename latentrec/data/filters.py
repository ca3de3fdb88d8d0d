"""Which events stay: windows, usable items, exact repeats, k-core, widening; and the funnel of counts.

Events are columns (see :class:`latentrec.data.reading.reviews.Events`); a filter maps an ascending array of
event indices to the sub-array that stays, so that file order is never lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pyarrow as pa

from latentrec.data.data_prep_config import months_before
from latentrec.data.reading.reviews import Events

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FunnelStep:
    """What remained after one filter."""

    name: str
    interactions: int
    users: int
    items: int


@dataclass(frozen=True)
class FilterResult:
    """Result of :func:`apply_filters`.

    Attributes:
        kept: integers, ascending indices of the events that stay.
        funnel: counts, from raw to k-core.
        window_start: the start that was used in the end (after widening), ``None`` for the whole file.
        widened: how often the window was moved back.
        repeats: exact repeats of (user, item, time) among the events in window with usable items.
    """

    kept: np.ndarray
    funnel: list[FunnelStep]
    window_start: int | None
    widened: int
    repeats: int


def apply_filters(
    events: Events,
    usable_item: np.ndarray,
    *,
    window_start: int | None,
    window_end: int | None,
    min_items: int,
    widen_months: int,
    drop_duplicates: bool,
    k_core: int,
    max_users: int | None = None,
    seed: int = 42,
) -> FilterResult:
    """Window, usable titles, duplicates, k-core, users' subset, in this order; widened for ``min_items``.

    Args:
        events: everything that was read.
        usable_item: bool (items,), by item code.
        window_start: inclusive UTC seconds or ``None``.
        window_end: exclusive UTC seconds or ``None``.
        min_items: 0 for no widening.
        widen_months: months per move.
        drop_duplicates: keep only the first of exact repeats.
        k_core: 1 keeps everything.
        max_users: see :func:`users_subset_mask`; the k-core is not applied again after it.
        seed: of the subset.
    """
    widened = 0
    earliest = int(events.time.min()) if len(events) else 0
    while True:
        result = _filter_once(
            events, usable_item, window_start, window_end, drop_duplicates=drop_duplicates, k_core=k_core
        )
        kept, funnel, repeats = result
        enough = funnel[-1].items >= min_items
        if enough or window_start is None or window_start <= earliest:
            if max_users is not None:
                kept = kept[users_subset_mask(events.user[kept], events.user_keys, max_users, seed)]
                funnel.append(_count("max_users", events, kept))
            return FilterResult(kept, funnel, window_start, widened, repeats)
        window_start = months_before(window_start, widen_months)
        widened += 1


def _filter_once(
    events: Events,
    usable_item: np.ndarray,
    window_start: int | None,
    window_end: int | None,
    *,
    drop_duplicates: bool,
    k_core: int,
) -> tuple[np.ndarray, list[FunnelStep], int]:
    kept = np.arange(len(events), dtype=np.int32 if len(events) < 2**31 else np.int64)
    funnel = [_count("raw", events, kept)]
    if window_start is not None:
        kept = kept[events.time[kept] >= window_start]
    if window_end is not None:
        kept = kept[events.time[kept] < window_end]
    funnel.append(_count("window", events, kept))
    if not usable_item.all():
        kept = kept[usable_item[_take(events.item, kept)]]
    funnel.append(_count("title", events, kept))
    first = first_of_repeats(*(_take(column, kept) for column in (events.user, events.item, events.time)))
    repeats = int(len(first) - first.sum())
    if drop_duplicates:
        kept = kept[first]
    funnel.append(_count("duplicates", events, kept))
    kept = kept[k_core_mask(_take(events.user, kept), _take(events.item, kept), k_core)]
    funnel.append(_count("k_core", events, kept))
    return kept, funnel, repeats


def reachable_items(events: Events, window_end: int | None, k_core: int) -> np.ndarray:
    """bool (items,): items that can remain, whatever their titles and however far the window moves back.

    The k-core of fewer events lies within the k-core of more.
    """
    inside = slice(None) if window_end is None else events.time < window_end
    user, item = events.user[inside], events.item[inside]
    reachable = np.zeros(len(events.item_keys), bool)
    reachable[item[k_core_mask(user, item, k_core)]] = True
    return reachable


def first_of_repeats(user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
    """bool (n,): the event is the first, in file order, with its (user, item, time)."""
    first = np.ones(len(user), bool)
    ascending = _pairs(user, item)
    ascending.sort()
    again = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
    del ascending
    if not len(again):
        return first
    found = []  # events whose user has reviewed the item more than once: few
    for start in range(0, len(user), _CHUNK):
        rows = slice(start, start + _CHUNK)
        pair = _pairs(user[rows], item[rows])
        place = np.minimum(np.searchsorted(again, pair), len(again) - 1)
        found.append(np.flatnonzero(again[place] == pair) + start)
    few = np.concatenate(found)
    pair = _pairs(user[few], item[few])
    order = np.lexsort((time[few], pair))  # stable: file order within equal keys
    pairs, times = pair[order], time[few][order]
    repeat = (pairs[1:] == pairs[:-1]) & (times[1:] == times[:-1])
    first[few[order[1:][repeat]]] = False
    return first


def k_core_mask(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """bool (n,): the largest set of events in which every user and every item has at least ``k``.

    The fixed point does not depend on the order of removal; users and items are dropped in turns until
    nothing changes.
    """
    alive = np.arange(len(user), dtype=np.int32 if len(user) < 2**31 else np.int64)
    while k > 1 and len(alive):
        before = len(alive)
        for codes in (user, item):
            present = _take(codes, alive)
            stays = (np.bincount(present) >= k)[present]
            if not stays.all():
                alive = alive[stays]
        if len(alive) == before:
            break
    mask = np.zeros(len(user), bool)
    mask[alive] = True
    return mask


def users_subset_mask(user: np.ndarray, user_keys: pa.Array, max_users: int, seed: int) -> np.ndarray:
    """bool (n,): the events of the ``max_users`` users whose keys hash lowest under ``seed``.

    The choice depends on keys and seed alone, not on the order of the file, and a larger subset holds every
    smaller one of the same seed.
    """
    present = np.unique(user)
    keys = user_keys.take(pa.array(present)).to_pylist()
    digests = {
        int(code): sha256(f"{seed}:{key}".encode()).digest() for code, key in zip(present, keys, strict=True)
    }
    chosen = np.zeros(int(present.max(initial=0)) + 1, bool)
    chosen[sorted(digests, key=digests.__getitem__)[:max_users]] = True
    return chosen[user]


def _count(name: str, events: Events, kept: np.ndarray) -> FunnelStep:
    return FunnelStep(
        name,
        interactions=len(kept),
        users=_distinct(_take(events.user, kept), len(events.user_keys)),
        items=_distinct(_take(events.item, kept), len(events.item_keys)),
    )


def _distinct(codes: np.ndarray, size: int) -> int:
    seen = np.zeros(size, bool)
    seen[codes] = True
    return int(seen.sum())


def _take(column: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The kept rows of a column, without a copy where all are kept."""
    return column if len(kept) == len(column) else column[kept]


def _pairs(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """int64, one number for each pair of a user and an item."""
    pair = user.astype(np.int64)
    pair <<= 32
    pair |= item
    return pair
