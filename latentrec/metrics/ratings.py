"""Errors of rating models that may fail to give a rating: an unparsable answer is never a hit.

Where a model's answer could not be read, its error is that of the fallback (the user's mean), it counts in
``unparsable_rate``, it stands in a column of its own in the confusion table, and it is wrong for ``accuracy``
even where the fallback happens to equal the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentrec.metrics.rating import absolute_error, squared_error


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
        absolute=absolute_error(scored, truth),
        squared=squared_error(scored, truth),
        unparsable=unparsable.astype(np.float64),
        exact=(~unparsable & (nearest_star(scored) == nearest_star(truth))).astype(np.float64),
    )


def nearest_star(ratings: np.ndarray) -> np.ndarray:
    """The whole number nearest to each rating; halves go up."""
    return np.floor(np.asarray(ratings, np.float64) + 0.5)


def confusion(predicted: np.ndarray, truth: np.ndarray, low: int = 1, high: int = 5) -> np.ndarray:
    """Counts by true and predicted star.

    Returns:
        int64 (stars, stars + 1): row = true star from ``low`` to ``high``, column = predicted star (cut
        to the scale), the last column what could not be read.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    stars = high - low + 1
    unparsable = ~np.isfinite(predicted)
    column = np.clip(nearest_star(np.where(unparsable, low, predicted)), low, high).astype(int) - low
    column[unparsable] = stars
    row = np.clip(nearest_star(truth), low, high).astype(int) - low
    table = np.zeros((stars, stars + 1), np.int64)
    np.add.at(table, (row, column), 1)
    return table
