"""Names, numbers and intervals as the tables write them."""

from __future__ import annotations

import numpy as np

from benchmarks.controls.records import read_record, seeds_of
from benchmarks.controls.statistics import Difference

NAMES = {
    "cds": "CDs",
    "office": "Office",
    "games-small": "Video Games, 4,000 users",
    "games-confirm": "Video Games, 10,000 untouched users",
}
NOT_RUN = "*not run yet*"
METRICS = ("HR@5", "NDCG@10")


def signed(one: Difference) -> str:
    """Difference and interval."""
    return f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"


def relative(one: Difference) -> str:
    """Relative difference and interval."""
    return f"{one.relative:+.1%} [{one.relative_low:+.1%}, {one.relative_high:+.1%}]"


def mean_figure(dataset: str, trial: str, figure: str, part: str = "figures") -> float:
    """Mean over seeds of a figure in a part of the records; NaN where there is none."""
    found = [read_record(dataset, trial, seed) for seed in seeds_of(dataset, trial)]
    values = [record[part][figure] for record in found if record and figure in record.get(part, {})]
    return float(np.mean(values)) if values else float("nan")


def or_dash(value: float, form: str) -> str:
    """The value, or a dash for NaN."""
    return "–" if np.isnan(value) else format(value, form)
