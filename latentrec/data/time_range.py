"""A part of the training samples by time, so that one stage can be kept from what the other learns from."""

from __future__ import annotations

import numpy as np

from latentrec.core import UserError
from latentrec.data import Samples


def check_time_range(config: str, start: float, end: float) -> None:
    """Refuse shares that leave no range of time.

    Raises:
        UserError: not 0 ≤ start < end ≤ 1.
    """
    if not 0 <= start < end <= 1:
        raise UserError(
            f"{config}.train_from is {start} and train_to is {end}; they are shares of the training samples "
            "in order of time: 0 <= train_from < train_to <= 1",
            code="config.bad_value",
        )


def within_time_range(samples: Samples, start: float, end: float) -> Samples:
    """The samples whose targets come between two shares of all, in order of time; split order is kept.

    Raises:
        UserError: nothing is left.
    """
    count = len(samples)
    if (start, end) == (0, 1):
        return samples
    by_time = np.argsort(samples.timestamps, kind="stable")
    chosen = by_time[round(start * count) : round(end * count)]
    if not len(chosen):
        raise UserError(
            f"no training sample lies between train_from {start} and train_to {end} of {count:,}; widen them",
            code="dataset.nothing_left",
        )
    return samples.subset(np.sort(chosen))
