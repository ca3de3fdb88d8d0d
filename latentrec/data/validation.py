"""Checks of a finished dataset that a scheduled run can rely on; a violated one fails the step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from latentrec.core import UserError
from latentrec.data.splits import Split


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: for programs.
        ok: whether it holds.
        level: ``error`` fails the step when violated, ``warning`` only shows.
        detail: figures, in a sentence.
    """

    name: str
    ok: bool
    level: str
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return asdict(self)


def split_checks(
    user: np.ndarray,
    time: np.ndarray,
    split: Split,
    *,
    method: str,
    max_history: int,
    window: tuple[int | None, int | None],
) -> list[Check]:
    """Leakage and completeness of the splits.

    Args:
        user: int32 (n,), ascending.
        time: int64 (n,), ascending within a user.
        split: what was assigned.
        method: ``temporal``, ``dates`` or ``leave_one_out``.
        max_history: of the samples.
        window: start inclusive and end exclusive, ``None`` where open.
    """
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    checks = []
    for name, rows in parts.items():
        checks.append(Check(f"{name}_not_empty", len(rows) > 0, "error", f"{name} has {len(rows):,} samples"))
    together = np.concatenate(list(parts.values()))
    times_seen = np.bincount(together, minlength=len(user))
    complete = bool((times_seen == (split.position > 0)).all())
    checks.append(
        Check("splits_disjoint_and_complete", complete, "error", "every event with a past is one sample")
    )
    future = sum(_future_items(user, time, rows, split.position, max_history) for rows in parts.values())
    checks.append(
        Check(
            "no_future_in_history",
            future == 0,
            "error",
            f"{future:,} samples have an item that is later or another user's",
        )
    )
    start, end = window
    targets = time[together]
    outside = int((targets < start).sum() if start is not None else 0)
    outside += int((targets >= end).sum() if end is not None else 0)
    checks.append(Check("targets_in_window", outside == 0, "error", f"{outside:,} targets are outside"))
    if method != "leave_one_out" and all(len(rows) for rows in parts.values()):
        last_train, last_valid = time[split.train].max(), time[split.valid].max()
        first_valid, first_test = time[split.valid].min(), time[split.test].min()
        in_order = last_train <= first_valid and last_valid <= first_test
        strict = last_train < first_valid and last_valid < first_test
        checks.append(
            Check("splits_in_order_of_time", bool(in_order), "error", "train, then valid, then test")
        )
        tied = int((time[split.valid] == last_train).sum() + (time[split.test] == last_valid).sum())
        level = "error" if method == "dates" else "warning"
        checks.append(
            Check(
                "no_tie_across_boundaries", bool(strict), level, f"{tied:,} targets share a boundary's time"
            )
        )
    return checks


def require(checks: list[Check]) -> None:
    """Fail on the first violated check of level ``error``.

    Raises:
        UserError: names the check and its figures.
    """
    for check in checks:
        if not check.ok and check.level == "error":
            raise UserError(
                f"data check '{check.name}' failed: {check.detail}{_CURES.get(check.name, '')}",
                code="dataset.check_failed",
            )


_CURES = {
    f"{name}_not_empty": "; loosen --k-core, --title-filter or the window, or choose another --split"
    for name in ("train", "valid", "test")
} | {
    "volume_against_previous": "; look at the sources, or raise --max-volume-drop if this is right",
    "all_items_titled": "; choose --title-filter strict, or metadata that covers the items",
}


def _future_items(
    user: np.ndarray, time: np.ndarray, rows: np.ndarray, position: np.ndarray, max_history: int
) -> int:
    """Samples whose history is not wholly the target's user's own earlier events.

    A history is the run of rows just before its target. With users in ascending order it is one user's when
    its first row is; with each event not before its neighbor of the same user, none of it is later.
    """
    first = rows - np.minimum(position[rows], max_history)
    foreign = (first < 0) | (user[np.maximum(first, 0)] != user[rows])
    same_user = user[1:] == user[:-1]
    unsorted = int((user[1:] < user[:-1]).sum() + (same_user & (time[1:] < time[:-1])).sum())
    return int(foreign.sum()) + unsorted
