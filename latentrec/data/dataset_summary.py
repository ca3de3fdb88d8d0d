"""What the manifest and the report say of a dataset that was just made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from latentrec.data.baseline_dataset import BaselineDataset, volume_check
from latentrec.data.data_prep_config import DataPrepConfig
from latentrec.data.filters import FilterResult
from latentrec.data.parquet_writer import Interactions
from latentrec.data.reading.metadata import Metadata
from latentrec.data.reading.reviews import Reviews
from latentrec.data.splits import SPLIT_NAMES, Split
from latentrec.data.validation import Check, split_checks

_FIRST_SHOP_S = 788_918_400
"""1995-01-01: no shop on the web has reviews from before."""


@dataclass(frozen=True)
class DatasetSummary:
    """Everything that was read, filtered and split, before it is written."""

    config: DataPrepConfig
    reviews: Reviews
    metadata: Metadata | None
    filtered: FilterResult
    interactions: Interactions
    split: Split

    @property
    def untitled(self) -> int:
        """Items of the catalogue that have no title of their own."""
        if self.metadata is None:
            return len(self.interactions.item_keys)
        texts = [self.metadata.texts[code] for code in self.interactions.item_codes]
        return sum(text is None or not text.title for text in texts)


def run_checks(prepared: DatasetSummary, previous: BaselineDataset | None) -> list[Check]:
    """Every check of the dataset, violated or not."""
    config, interactions = prepared.config, prepared.interactions
    checks = split_checks(
        interactions.user,
        interactions.time,
        prepared.split,
        method=config.split,
        max_history=config.max_history,
        window=(prepared.filtered.window_start, config.seconds("window_end")),
    )
    n_items = len(interactions.item_keys)
    if config.min_items:
        detail = (
            f"{n_items:,} items, at least {config.min_items:,} wanted; the window was moved back "
            f"{prepared.filtered.widened} times"
        )
        checks.append(Check("min_items", n_items >= config.min_items, "warning", detail))
    untitled = prepared.untitled
    level = "error" if config.require_titles else "warning"
    detail = f"{untitled:,} of {n_items:,} items have no title"
    checks.append(Check("all_items_titled", untitled == 0, level, detail))
    early = int((interactions.time < _FIRST_SHOP_S).sum())
    if early:
        detail = f"{early:,} of {len(interactions):,} events are from before 1995: is their time unknown?"
        checks.append(Check("plausible_times", False, "warning", detail))
    if previous is not None:
        checks.append(volume_check(previous, len(interactions), config.max_volume_drop))
    return checks


def counts_of(prepared: DatasetSummary) -> dict[str, Any]:
    """``counts`` of the manifest."""
    metadata, interactions = prepared.metadata, prepared.interactions
    return {
        **{step.name: step.interactions for step in prepared.filtered.funnel},
        "bad_lines": prepared.reviews.bad.count + (metadata.bad.count if metadata else 0),
        "repeats": prepared.filtered.repeats,
        "users": len(interactions.user_keys),
        "items": len(interactions.item_keys),
        "interactions": len(interactions),
        **{name: len(prepared.split.targets(name)) for name in SPLIT_NAMES},
    }


def extra_of(prepared: DatasetSummary, checks: list[Check]) -> dict[str, Any]:
    """What is particular to the manifest of a dataset."""
    config, reviews, metadata = prepared.config, prepared.reviews, prepared.metadata
    interactions, split, filtered = prepared.interactions, prepared.split, prepared.filtered
    extra: dict[str, Any] = {
        "has_titles": metadata is not None and prepared.untitled == 0,
        "source": [
            *({"kind": "reviews", **file.describe()} for file in reviews.files),
            *({"kind": "metadata", **file.describe()} for file in (metadata.files if metadata else [])),
        ],
        "formats": sorted({*reviews.formats, *(metadata.formats if metadata else [])}),
        "window": {
            "start": filtered.window_start,
            "end": config.seconds("window_end"),
            "first_event": int(interactions.time.min()),
            "last_event": int(interactions.time.max()),
            "widened": filtered.widened,
        },
        "train_end": split.train_end,
        "boundaries": split.boundaries,
        "funnel": [vars(step) for step in filtered.funnel],
        "checks": [check.to_dict() for check in checks],
        "bad_line_examples": [*reviews.bad.examples, *(metadata.bad.examples if metadata else [])],
    }
    if config.task == "rating":
        extra["train_mean_rating"] = float(interactions.rating[split.in_training].mean(dtype=np.float64))
    return extra


def day(seconds: int) -> str:
    """UTC day of a time, YYYY-MM-DD."""
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))
