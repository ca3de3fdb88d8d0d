"""Errors of predicted ratings; one value a sample."""

from __future__ import annotations

import numpy as np


def absolute_error(predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """``|ŷ − y|`` of each sample, on the rating's own scale; its mean is MAE."""
    return np.abs(np.asarray(predicted, np.float64) - np.asarray(actual, np.float64))


def squared_error(predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """``(ŷ − y)²`` of each sample; the root of its mean is RMSE."""
    return (np.asarray(predicted, np.float64) - np.asarray(actual, np.float64)) ** 2


def mae(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Mean absolute error."""
    return float(absolute_error(predicted, actual).mean())
