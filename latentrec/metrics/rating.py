"""Errors of rating models that may fail to give a rating: an unparsable answer is never a hit.

Where a model's answer could not be read, its error is that of the fallback (the user's mean), it counts in
``unparsable_rate``, it stands in a column of its own in the confusion table, and it is wrong for ``accuracy``
even where the fallback happens to equal the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STARS = 5


@dataclass(frozen=True)
class RatingErrors:
    """Per-sample values of one model's predictions, float64 (S,) each.

    Attributes:
        absolute, squared: errors, of the fallback where there is no prediction.
        unparsable: 1 where there is no prediction.
        exact: 1 where a prediction is there and rounds to the truth.
    """

    absolute: np.ndarray
    squared: np.ndarray
    unparsable: np.ndarray
    exact: np.ndarray


def rating_errors(predicted: np.ndarray, truth: np.ndarray, fallback: np.ndarray) -> RatingErrors:
    """Score predictions (S,), NaN where an answer could not be read, against ``truth`` (S,).

    ``fallback`` (S,) stands in for what could not be read; it must be finite.

    Raises:
        ValueError: shapes differ, or ``truth`` or ``fallback`` is not finite.
    """
    predicted, truth, fallback = (np.asarray(values, np.float64) for values in (predicted, truth, fallback))
    if not predicted.shape == truth.shape == fallback.shape:
        raise ValueError(f"shapes differ: {predicted.shape}, {truth.shape}, {fallback.shape}")
    if not (np.isfinite(truth).all() and np.isfinite(fallback).all()):
        raise ValueError("truth and fallback must be finite numbers")
    unparsable = ~np.isfinite(predicted)
    scored = np.where(unparsable, fallback, predicted)
    return RatingErrors(
        absolute=np.abs(scored - truth),
        squared=(scored - truth) ** 2,
        unparsable=unparsable.astype(np.float64),
        exact=(~unparsable & (nearest_star(scored) == nearest_star(truth))).astype(np.float64),
    )


def nearest_star(ratings: np.ndarray) -> np.ndarray:
    """The whole number nearest to each rating; halves go up."""
    return np.floor(np.asarray(ratings, np.float64) + 0.5)


def confusion(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Counts by true and predicted star, from 1 to 5.

    Returns:
        int64 (5, 6): row = true star, column = predicted star (cut to the scale), the last column what could
        not be read.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    unparsable = ~np.isfinite(predicted)
    column = np.clip(nearest_star(np.where(unparsable, 1, predicted)), 1, STARS).astype(int) - 1
    column[unparsable] = STARS
    row = np.clip(nearest_star(truth), 1, STARS).astype(int) - 1
    table = np.zeros((STARS, STARS + 1), np.int64)
    np.add.at(table, (row, column), 1)
    return table
