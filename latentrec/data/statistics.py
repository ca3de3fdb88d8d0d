"""Figures of the data report: distributions, repeats, ties, shared titles, what is new in the test split."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from latentrec.data.dataset_summary import DatasetSummary, day
from latentrec.data.splits import SPLIT_NAMES, history_rows

_BINS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)


def share_figures(prepared: DatasetSummary, title_ids: np.ndarray) -> list[tuple[str, str]]:
    """(what, figure) of everything that skews a comparison of models."""
    data, split = prepared.interactions, prepared.split
    n = len(data)
    same_user = data.user[1:] == data.user[:-1]
    ties = int((same_user & (data.time[1:] == data.time[:-1])).sum())
    shared = np.bincount(title_ids)[title_ids] > 1
    trained = np.bincount(data.item[split.in_training], minlength=len(title_ids))
    train_users = np.zeros(len(data.user_keys), bool)
    train_users[data.user[split.train]] = True
    test = split.test
    unseen_items = int((trained[data.item[test]] == 0).sum())
    unseen_users = int((~train_users[data.user[test]]).sum())
    before = next(step.interactions for step in prepared.filtered.funnel if step.name == "title")
    bought = _already_in_history(prepared, test)
    by_count = np.sort(np.bincount(data.item, minlength=len(title_ids)))[::-1]
    top = max(1, len(by_count) // 10)
    return [
        ("repeats of user, item and time (before --duplicates)", _share(prepared.filtered.repeats, before)),
        ("events at the same time as the user's event before", _share(ties, n)),
        ("items that share their title with another", _share(int(shared.sum()), len(title_ids))),
        ("test targets whose title is shared", _share(int(shared[data.item[test]].sum()), len(test))),
        ("test targets that stand in their own history", _share(bought, len(test))),
        ("test targets without a training event", _share(unseen_items, len(test))),
        ("test samples of users without a training sample", _share(unseen_users, len(test))),
        ("events of the most popular tenth of the items", _share(int(by_count[:top].sum()), n)),
    ]  # fmt: skip


def split_rows(prepared: DatasetSummary) -> list[dict[str, Any]]:
    """Size, users, items, first and last day and mean history of each split."""
    data, split, limit = prepared.interactions, prepared.split, prepared.config.max_history
    rows = []
    for name in SPLIT_NAMES:
        targets = split.targets(name)
        rows.append(
            {
                "split": name,
                "samples": len(targets),
                "users": len(np.unique(data.user[targets])),
                "items": len(np.unique(data.item[targets])),
                "first": int(data.time[targets].min()),
                "last": int(data.time[targets].max()),
                "history": float(np.minimum(split.position[targets], limit).mean()),
            }
        )
    return rows


def history_lengths(prepared: DatasetSummary) -> tuple[list[str], dict[str, list[int]]]:
    """Samples of each split by length of history, 1 to ``max_history``."""
    limit = prepared.config.max_history
    counts = {}
    for name in SPLIT_NAMES:
        lengths = np.minimum(prepared.split.position[prepared.split.targets(name)], limit)
        counts[name] = np.bincount(lengths, minlength=limit + 1)[1:].tolist()
    return [str(length) for length in range(1, limit + 1)], counts


def binned_counts(codes: np.ndarray) -> tuple[list[str], list[int]]:
    """How many users (items) have how many events, in bins that widen."""
    counts = np.bincount(codes)
    counts = counts[counts > 0]
    last = int(np.searchsorted(_BINS, counts.max(), "right"))
    edges = [*_BINS[:last], int(counts.max()) + 1]
    found, _ = np.histogram(counts, edges)
    labels = [str(low) if high - low == 1 else f"{low}–{high - 1}" for low, high in itertools.pairwise(edges)]
    return labels, found.tolist()


def over_time(prepared: DatasetSummary) -> tuple[list[str], dict[str, list[int]], float, float]:
    """Events by time (at most 60 bins) and split; also the start and the width of a bin in seconds."""
    data, split = prepared.interactions, prepared.split
    start, end = int(data.time.min()), int(data.time.max()) + 1
    days = max(1, -(-(end - start) // 86_400))
    width = 86_400 * max(1, -(-days // 60))
    first = start // 86_400 * 86_400
    n = (end - 1 - first) // width + 1
    place = ((data.time - first) // width).astype(np.int64)
    group = np.zeros(len(data), np.int8)
    for number, name in enumerate(SPLIT_NAMES, 1):
        group[split.targets(name)] = number
    counts = {
        name: np.bincount(place[group == number], minlength=n).tolist()
        for number, name in enumerate(("first events", *SPLIT_NAMES))
    }
    labels = [day(first + index * width) for index in range(n)]
    return labels, counts, float(first), float(width)


def examples(prepared: DatasetSummary, titles: list[str], n: int = 5) -> list[tuple[str, list[str], str]]:
    """Random test samples as (user key, titles of the history, title of the target)."""
    data, split = prepared.interactions, prepared.split
    generator = np.random.default_rng(prepared.config.seed)
    chosen = generator.choice(split.test, min(n, len(split.test)), replace=False)
    found = []
    for row in chosen.tolist():
        _, history = history_rows(np.array([row]), split.position, prepared.config.max_history)
        key = str(data.user_keys[int(data.user[row])])
        found.append((key, [titles[item] for item in data.item[history]], titles[data.item[row]]))
    return found


def _already_in_history(prepared: DatasetSummary, targets: np.ndarray) -> int:
    data, found = prepared.interactions, 0
    for start in range(0, len(targets), 1 << 17):
        rows = targets[start : start + (1 << 17)]
        offsets, history = history_rows(rows, prepared.split.position, prepared.config.max_history)
        lengths = np.diff(offsets)
        same = data.item[history] == np.repeat(data.item[rows], lengths)
        found += len(np.unique(np.repeat(np.arange(len(rows)), lengths)[same]))
    return found


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.2%})" if whole else "none"
