"""Rating baselines without a language model: means, medians, biases. Fitted on training ratings only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class RatingTriples:
    """Ratings as parallel arrays.

    Attributes:
        users, items: int (R,).
        ratings: float64 (R,).
        n_users, n_items: how many there are in all, rated or not.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    n_users: int
    n_items: int

    @property
    def mean(self) -> float:
        """Global mean μ."""
        return float(self.ratings.mean())


class RatingBaseline(Protocol):
    """Fitted once, then predicts a rating for pairs of user and item."""

    name: str

    def fit(self, train: RatingTriples) -> None:
        """Learn from training ratings."""
        ...

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """float64 (S,): one rating a pair, on no scale in particular."""
        ...


@dataclass
class GlobalMean:
    """μ for everybody; the mean minimizes squared error."""

    name: str = "global mean"
    _value: float = 0.0

    def fit(self, train: RatingTriples) -> None:
        """Learn μ."""
        self._value = train.mean

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """μ."""
        return np.full(len(users), self._value)


@dataclass
class GlobalMedian:
    """The median for everybody; of all constants it has the smallest *absolute* error in training.

    Beside the means it shows how much of a low MAE comes from answering the commonest rating.
    """

    name: str = "global median"
    _value: float = 0.0

    def fit(self, train: RatingTriples) -> None:
        """Learn the median."""
        self._value = float(np.median(train.ratings))

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The median."""
        return np.full(len(users), self._value)


@dataclass
class UserMean:
    """Mean of the user's training ratings; μ for a user without any. The promotion gate's floor."""

    name: str = "user mean"
    _values: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def fit(self, train: RatingTriples) -> None:
        """Learn each user's mean."""
        self._values = _means(train.users, train.ratings, train.n_users, train.mean)

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Each user's mean."""
        return self._values[users]


@dataclass
class ItemMean:
    """Mean of the item's training ratings; μ for an item without any."""

    name: str = "item mean"
    _values: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def fit(self, train: RatingTriples) -> None:
        """Learn each item's mean."""
        self._values = _means(train.items, train.ratings, train.n_items, train.mean)

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Each item's mean."""
        return self._values[items]


@dataclass
class BiasModel:
    """μ + b_u + b_i with damped biases (Koren 2010, eqs. 1-2): b_i first, then b_u on what it leaves.

    Args:
        item_damping, user_damping: ratings of 0 bias added to each item and user.
    """

    item_damping: float = 10.0
    user_damping: float = 5.0
    name: str = "user + item bias"
    _mean: float = 0.0
    _user: np.ndarray = field(default_factory=lambda: np.zeros(0))
    _item: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def fit(self, train: RatingTriples) -> None:
        """Learn μ, b_i, b_u."""
        self._mean = train.mean
        rest = train.ratings - self._mean
        self._item = _damped(train.items, rest, train.n_items, self.item_damping)
        self._user = _damped(train.users, rest - self._item[train.items], train.n_users, self.user_damping)

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """μ + b_u + b_i."""
        return self._mean + self._user[users] + self._item[items]


def _means(ids: np.ndarray, ratings: np.ndarray, n: int, default: float) -> np.ndarray:
    counts = np.bincount(ids, minlength=n)
    sums = np.bincount(ids, weights=ratings, minlength=n)
    return np.where(counts > 0, sums / np.maximum(counts, 1), default)


def _damped(ids: np.ndarray, rest: np.ndarray, n: int, damping: float) -> np.ndarray:
    sums = np.bincount(ids, weights=rest, minlength=n)
    return sums / (np.bincount(ids, minlength=n) + damping)
