"""Rating samples with everything that a prompt may show: history with texts, target, training-period means.

Read from a dataset made with ``--task rating``. Nothing here is later than the sample: the history precedes
the target, and the means are of the training period only. For samples of the training split itself the
target's own rating is taken out of both means; otherwise a user with two ratings would have the answer
printed in the prompt, and a model trained on that would trust the means too much at test time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.core import UserError
from latentrec.data.dataset import Dataset


@dataclass(frozen=True)
class HistoryEntry:
    """One rated item of a history; ``review`` is empty where there is no text."""

    title: str
    rating: float
    review: str = ""


@dataclass(frozen=True)
class RatingExample:
    """One rating to predict.

    Attributes:
        history: what the user rated before, oldest first.
        title, description: of the target item; ``description`` is empty where there is none.
        user_mean, item_mean: mean ratings in the training period; ``None`` where there is none.
        rating: the truth; NaN when serving.
        user_id, target, row: the user, the item, and the target's row in ``interactions.parquet``; −1 when
            serving.
    """

    history: tuple[HistoryEntry, ...]
    title: str
    description: str = ""
    user_mean: float | None = None
    item_mean: float | None = None
    rating: float = float("nan")
    user_id: int = -1
    target: int = -1
    row: int = -1


class RatingTask:
    """The rating samples of a dataset directory."""

    def __init__(self, dataset: Dataset):
        """Open the dataset.

        Raises:
            UserError: it was not prepared for the rating task.
        """
        self.dataset = dataset
        items, users = dataset.items, pq.read_table(dataset.directory / "users.parquet")
        splits = pq.read_schema(dataset.directory / "train.parquet").names
        for table, names, column in (
            ("items.parquet", items.column_names, "train_mean_rating"),
            ("users.parquet", users.column_names, "train_mean_rating"),
            ("train.parquet", splits, "row"),
            ("train.parquet", splits, "history_rows"),
        ):
            if column not in names:
                raise UserError(
                    f"{dataset.directory}: {table} has no column '{column}'; "
                    "prepare the data with 'latentrec data-prep --task rating'",
                    code="dataset.other_task",
                )
        self.global_mean = float(dataset.manifest.extra["train_mean_rating"])
        self._user_means = _nullable(users, "train_mean_rating")
        self._item_means = _nullable(items, "train_mean_rating")
        self._descriptions = (
            [text or "" for text in items["description"].to_pylist()]
            if "description" in items.column_names
            else [""] * items.num_rows
        )
        self._titles = dataset.titles
        self._interactions = pq.read_table(dataset.directory / "interactions.parquet").combine_chunks()
        self._ratings = self._interactions["rating"].to_numpy()
        self._items = self._interactions["item_id"].to_numpy()
        self._users = self._interactions["user_id"].to_numpy()
        self._reviews = _reviews(self._interactions)

    def train_rows(self) -> np.ndarray:
        """int64, sorted: rows of ``interactions.parquet`` that the training samples show or predict."""
        table = pq.read_table(self.dataset.directory / "train.parquet", columns=["row", "history_rows"])
        shown = table["history_rows"].combine_chunks().flatten().to_numpy()
        return np.union1d(table["row"].to_numpy(), shown).astype(np.int64)

    def training_reviews(self) -> list[str]:
        """Texts of the reviews of the training period, in file order, without the empty ones."""
        return [text for row in self.train_rows() if (text := self._reviews[row])]

    def ratings_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """User ids, item ids and ratings at ``rows`` of ``interactions.parquet``."""
        return self._users[rows], self._items[rows], self._ratings[rows].astype(np.float64)

    def timestamps_of(self, rows: Sequence[int]) -> np.ndarray:
        """int64: UTC seconds of the interactions at ``rows``."""
        return self._interactions["timestamp"].to_numpy()[np.asarray(rows, np.int64)]

    def item_mean(self, item_id: int) -> float | None:
        """Mean rating of an item in the training period."""
        return self._item_means[item_id]

    def examples(self, split: str, *, limit: int | None = None, seed: int = 42) -> list[RatingExample]:
        """Samples of one split in file order; ``limit`` draws that many at random, by ``seed``.

        Raises:
            UserError: the split is empty.
        """
        columns = ["user_id", "target", "rating", "row", "history_rows"]
        table = pq.read_table(self.dataset.directory / f"{split}.parquet", columns=columns)
        if table.num_rows == 0:
            raise UserError(
                f"{self.dataset.directory}: split '{split}' is empty; widen the window or the data",
                code="dataset.nothing_left",
            )
        if limit is not None and limit < table.num_rows:
            chosen = np.random.default_rng(seed).permutation(table.num_rows)[:limit]
            table = table.take(pa.array(np.sort(chosen)))
        leave_out = _LeaveOneOut(self) if split == "train" else None
        return [self._example(record, leave_out) for record in table.to_pylist()]

    def _example(self, record: dict[str, Any], leave_out: _LeaveOneOut | None) -> RatingExample:
        user, item, row = record["user_id"], record["target"], record["row"]
        means = leave_out.means(row) if leave_out else (self._user_means[user], self._item_means[item])
        return RatingExample(
            history=tuple(
                HistoryEntry(
                    title=self._titles[self._items[past]],
                    rating=float(self._ratings[past]),
                    review=self._reviews[past],
                )
                for past in record["history_rows"]
            ),
            title=self._titles[item],
            description=self._descriptions[item],
            user_mean=means[0],
            item_mean=means[1],
            rating=float(record["rating"]),
            user_id=user,
            target=item,
            row=row,
        )


class _LeaveOneOut:
    """Training-period means without one rating of that period."""

    def __init__(self, task: RatingTask):
        rows = task.train_rows()
        users, items, ratings = task.ratings_of(rows)
        self._task = task
        self._user_sums = np.bincount(users, weights=ratings, minlength=len(task._user_means))
        self._user_counts = np.bincount(users, minlength=len(task._user_means))
        self._item_sums = np.bincount(items, weights=ratings, minlength=len(task._item_means))
        self._item_counts = np.bincount(items, minlength=len(task._item_means))

    def means(self, row: int) -> tuple[float | None, float | None]:
        user, item, rating = (column[0] for column in self._task.ratings_of(np.array([row])))
        return (
            _mean_without(self._user_sums[user], self._user_counts[user], rating),
            _mean_without(self._item_sums[item], self._item_counts[item], rating),
        )


def _mean_without(total: float, count: int, rating: float) -> float | None:
    return float((total - rating) / (count - 1)) if count > 1 else None


def _nullable(table: pa.Table, column: str) -> list[float | None]:
    return table[column].to_pylist()


def _reviews(interactions: pa.Table) -> list[str]:
    """Review text of each interaction; its summary where the text is empty; else nothing."""
    texts: list[str] = [""] * interactions.num_rows
    for column in ("summary", "review_text"):
        if column in interactions.column_names:
            values = interactions[column].to_pylist()
            texts = [value or text for text, value in zip(texts, values, strict=True)]
    return texts
