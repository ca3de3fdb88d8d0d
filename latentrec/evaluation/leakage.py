"""Which test samples a model may have trained on: they say nothing about it and do not count for promotion.

A model trained on the dataset at hand has seen its training split only. A model trained on another dataset
(yesterday's champion, a model directory given by hand) may have seen every event up to its own
``train_end``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from latentrec.data import Dataset
from latentrec.models import ModelInfo

_logger = logging.getLogger(__name__)


def may_have_trained_on(info: ModelInfo, dataset: Dataset, split: str, timestamps: np.ndarray) -> np.ndarray:
    """bool (S,): samples (with these target times, UTC seconds) that a model may have trained on."""
    if info.dataset_fingerprint == dataset.fingerprint:
        if split == "train":
            return np.ones(len(timestamps), bool)
        # A model that was started from one of later data has seen that data too.
        if info.train_end <= dataset.train_end:
            return np.zeros(len(timestamps), bool)
    return timestamps <= info.train_end


def leaks(
    infos: Mapping[str, ModelInfo],
    dataset: Dataset,
    split: str,
    timestamps: np.ndarray,
    helpers: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, np.ndarray]:
    """Model → bool (S,) for every model that may have trained on a sample.

    Args:
        infos: of the models by name.
        dataset: whose split is evaluated.
        split: of the samples.
        timestamps: int64 (S,), of the targets.
        helpers: model → models whose scores it uses (the assistant of a mixture).
    """
    own = {name: may_have_trained_on(info, dataset, split, timestamps) for name, info in infos.items()}
    found = {}
    for name, rows in own.items():
        for helper in (helpers or {}).get(name, ()):
            rows = rows | own[helper]
        if rows.any():
            found[name] = rows
    return found


def leak_warnings(found: Mapping[str, np.ndarray]) -> list[str]:
    """One sentence a model, logged as a warning and shown in the report."""
    sentences = [
        f"{name} may have trained on {int(rows.sum()):,} of the {len(rows):,} samples: its training period "
        "ends after them. Its figures in the tables are too good; the gate leaves these samples out."
        for name, rows in found.items()
    ]
    for sentence in sentences:
        _logger.warning("%s", sentence)
    return sentences
