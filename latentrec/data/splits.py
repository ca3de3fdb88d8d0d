"""Samples and splits: every event with a past is one sample, and belongs to exactly one split.

Events arrive sorted by user, then time, then file order. Sample order is (time, user, position), so that a
boundary inside a tie does not depend on the order of the input files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latentrec.core import UserError

SPLIT_NAMES = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """Which events are targets of which split.

    Attributes:
        train, valid, test: int64, rows of ``interactions.parquet`` that are targets, in order of time.
        position: int32 (n,), how many earlier events the user has.
        in_training: bool (n,), the event belongs to the training period (see :func:`training_period`).
        train_end: UTC seconds of the last event of the training period.
        boundaries: UTC seconds of the first validation and the first test target (temporal and dates).
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    position: np.ndarray
    in_training: np.ndarray
    train_end: int
    boundaries: dict[str, int]

    def targets(self, name: str) -> np.ndarray:
        """Rows of the targets of ``train``, ``valid`` or ``test``."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


def split_samples(
    user: np.ndarray,
    time: np.ndarray,
    method: str,
    *,
    valid_start: int | None = None,
    test_start: int | None = None,
) -> Split:
    """Assign every event that has a past to train, valid or test.

    ``temporal``: the first 80 %, the next 10 % and the rest of all samples by time (``int(0.8 n)``,
    ``int(0.9 n)`` as published). ``dates``: targets before ``valid_start``, before ``test_start``, and the
    rest. ``leave_one_out``: each user's last event is test, the one before it valid, the others train; users
    with fewer than three events serve training only.

    Args:
        user: int32 (n,), ascending.
        time: int64 (n,), ascending within a user.
        method: ``temporal``, ``dates`` or ``leave_one_out``.
        valid_start: for ``dates``, UTC seconds.
        test_start: for ``dates``, UTC seconds.

    Raises:
        UserError: there are no events, or none has a past.
    """
    if len(user) == 0:
        raise UserError(
            "no interaction is left after filtering; loosen --k-core, --title-filter or the window",
            code="dataset.nothing_left",
        )
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    lengths = np.diff(np.r_[starts, len(user)])
    position = (np.arange(len(user)) - np.repeat(starts, lengths)).astype(np.int32)
    targets = np.flatnonzero(position > 0)
    if len(targets) == 0:
        raise UserError(
            "no user has two events after filtering, so there is no sample; loosen the filters",
            code="dataset.nothing_left",
        )
    targets = targets[np.argsort(time[targets], kind="stable")]
    if method == "temporal":
        first, second = int(len(targets) * 0.8), int(len(targets) * 0.9)
        train, valid, test = targets[:first], targets[first:second], targets[second:]
    elif method == "dates":
        assert valid_start is not None
        assert test_start is not None
        first, second = np.searchsorted(time[targets], [valid_start, test_start])
        train, valid, test = targets[:first], targets[first:second], targets[second:]
    else:
        from_end = (np.repeat(lengths, lengths) - 1 - position)[targets]
        is_long = np.repeat(lengths, lengths)[targets] >= 3
        valid = targets[is_long & (from_end == 1)]
        test = targets[is_long & (from_end == 0)]
        train = targets[~is_long | (from_end > 1)]
    in_training, train_end = training_period(time, position, train, valid, test, method)
    boundaries = {}
    if method != "leave_one_out":
        boundaries = {
            name: int(time[rows[0]])
            for name, rows in (("valid_start", valid), ("test_start", test))
            if len(rows)
        }
    return Split(train, valid, test, position, in_training, train_end, boundaries)


def training_period(
    time: np.ndarray,
    position: np.ndarray,
    train: np.ndarray,
    valid: np.ndarray,
    test: np.ndarray,
    method: str,
) -> tuple[np.ndarray, int]:
    """Which events counts and means of training may use, and the time of the last of them.

    Training targets, and users' first events (which are no targets) unless they lie later than the last
    training target. In leave-one-out there is no common end: every event that is not a validation or test
    target belongs.
    """
    in_training = np.zeros(len(time), bool)
    in_training[train] = True
    first_events = position == 0
    if method == "leave_one_out":
        in_training |= first_events
    elif len(train):
        in_training |= first_events & (time <= time[train[-1]])
    assert not in_training[valid].any()
    assert not in_training[test].any()
    train_end = int(time[in_training].max()) if in_training.any() else 0
    return in_training, train_end


def history_rows(
    targets: np.ndarray, position: np.ndarray, max_history: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each target's history, back to back, oldest first, and their offsets.

    Returns:
        (offsets int64 (S + 1,), rows int64).
    """
    lengths = np.minimum(position[targets], max_history).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    starts = np.repeat(targets - lengths - offsets[:-1], lengths)
    return offsets, starts + np.arange(offsets[-1])
