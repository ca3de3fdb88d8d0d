"""From review files to a dataset directory: read, filter, number, split, check, write, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from latentrec.core import UserError
from latentrec.data.checks import Check, require, split_checks
from latentrec.data.config import DataPrepConfig, utc_seconds
from latentrec.data.filters import Filtered, apply_filters
from latentrec.data.jsonlines import BadLines
from latentrec.data.metadata import Metadata, read_metadata
from latentrec.data.report import write_report
from latentrec.data.reviews import Reviews, read_reviews, read_texts
from latentrec.data.splits import Split, split_samples
from latentrec.data.tables import (
    Interactions,
    arrange,
    interactions_table,
    items_table,
    users_table,
    write_samples,
    write_table,
)
from latentrec.storage import ArtifactWriter, Manifest


def prepare(config: DataPrepConfig, output: str | Path) -> Manifest:
    """Make a dataset directory.

    Args:
        config: what to read and how; a profile in it is applied here.
        output: the directory; what stood there is removed first.

    Returns:
        The manifest; ``extra`` holds ``window``, ``source``, ``funnel``, ``checks``, ``has_titles``,
        ``train_end``, ``boundaries`` and, for the rating task, ``train_mean_rating``.

    Raises:
        UserError: bad input or configuration, or a violated check; nothing is written then.
    """
    config = config.resolved()
    with ArtifactWriter(output, "dataset", config, identity=config.identity()) as writer:
        bad = BadLines(config.skip_bad_lines, config.max_bad_share)
        reviews = read_reviews(config.reviews, bad)
        metadata = _read_metadata(config, reviews)
        filtered = _filter(config, reviews, metadata)
        interactions = arrange(reviews.events, filtered.kept)
        split = split_samples(
            interactions.user,
            interactions.time,
            config.split,
            valid_start=_seconds(config, "valid_start"),
            test_start=_seconds(config, "test_start"),
        )
        checks = _checks(config, interactions, metadata, split, filtered)
        require(checks)
        _write_tables(writer.path, config, reviews, interactions, metadata, split)
        writer.counts = _counts(reviews, interactions, filtered, split)
        writer.extra = _extra(config, reviews, interactions, metadata, split, filtered, checks)
        write_report(writer.path, config, writer.counts, writer.extra)
    assert writer.manifest is not None
    return writer.manifest


def _read_metadata(config: DataPrepConfig, reviews: Reviews) -> Metadata | None:
    if not config.metadata:
        return None
    return read_metadata(
        config.metadata,
        reviews.events.item_keys,
        BadLines(config.skip_bad_lines, config.max_bad_share),
        title_filter=config.title_filter,
        max_title_words=config.max_title_words,
    )


def _filter(config: DataPrepConfig, reviews: Reviews, metadata: Metadata | None) -> Filtered:
    events = reviews.events
    usable = np.ones(len(events.item_keys), bool)
    if metadata is not None and config.title_filter != "none":
        usable = np.array(metadata.usable, bool)
    filtered = apply_filters(
        events,
        usable,
        window_start=_seconds(config, "window_start"),
        window_end=_seconds(config, "window_end"),
        min_items=config.min_items,
        widen_months=config.widen_months,
        drop_duplicates=config.duplicates == "drop",
        k_core=config.k_core,
    )
    if not len(filtered.kept):
        funnel = ", ".join(f"{step.name} {step.interactions:,}" for step in filtered.funnel)
        span = f"{_day(int(events.time.min()))} to {_day(int(events.time.max()))}"
        raise UserError(
            f"no interaction is left after filtering ({funnel}); the reviews run from {span}; "
            "widen the window, or loosen --title-filter or --k-core"
        )
    return filtered


def _checks(
    config: DataPrepConfig,
    interactions: Interactions,
    metadata: Metadata | None,
    split: Split,
    filtered: Filtered,
) -> list[Check]:
    checks = split_checks(
        interactions.user,
        interactions.time,
        split,
        method=config.split,
        max_history=config.max_history,
        window=(filtered.window_start, _seconds(config, "window_end")),
    )
    n_items = len(interactions.item_keys)
    checks.append(
        Check(
            "min_items",
            n_items >= config.min_items,
            "warning",
            f"{n_items:,} items, at least {config.min_items:,} wanted; the window was moved back "
            f"{filtered.widened} times",
        )
    )
    untitled = _untitled(interactions, metadata)
    checks.append(
        Check(
            "all_items_titled", untitled == 0, "warning", f"{untitled:,} of {n_items:,} items have no title"
        )
    )
    return checks


def _write_tables(
    directory: Path,
    config: DataPrepConfig,
    reviews: Reviews,
    interactions: Interactions,
    metadata: Metadata | None,
    split: Split,
) -> None:
    is_rating = config.task == "rating"
    texts = read_texts(reviews, interactions.source_row) if is_rating else None
    write_table(directory / "items.parquet", items_table(interactions, metadata, split, is_rating=is_rating))
    write_table(directory / "users.parquet", users_table(interactions, split, is_rating=is_rating))
    write_table(directory / "interactions.parquet", interactions_table(interactions, texts))
    for name in ("train", "valid", "test"):
        write_samples(
            directory / f"{name}.parquet",
            interactions,
            getattr(split, name),
            split.position,
            max_history=config.max_history,
            is_rating=is_rating,
        )


def _counts(reviews: Reviews, interactions: Interactions, filtered: Filtered, split: Split) -> dict[str, Any]:
    return {
        **{step.name: step.interactions for step in filtered.funnel},
        "bad_lines": reviews.bad.count,
        "repeats": filtered.repeats,
        "users": len(interactions.user_keys),
        "items": len(interactions.item_keys),
        "interactions": len(interactions),
        "train": len(split.train),
        "valid": len(split.valid),
        "test": len(split.test),
    }


def _extra(
    config: DataPrepConfig,
    reviews: Reviews,
    interactions: Interactions,
    metadata: Metadata | None,
    split: Split,
    filtered: Filtered,
    checks: list[Check],
) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "has_titles": metadata is not None and _untitled(interactions, metadata) == 0,
        "source": [
            *({"kind": "reviews", **file.describe()} for file in reviews.files),
            *({"kind": "metadata", **file.describe()} for file in (metadata.files if metadata else [])),
        ],
        "formats": sorted({file_format.name for file_format in reviews.formats}),
        "window": {
            "start": filtered.window_start,
            "end": _seconds(config, "window_end"),
            "first_event": int(interactions.time.min()),
            "last_event": int(interactions.time.max()),
            "widened": filtered.widened,
        },
        "train_end": split.train_end,
        "boundaries": split.boundaries,
        "funnel": [vars(step) for step in filtered.funnel],
        "checks": [check.to_dict() for check in checks],
        "bad_line_examples": reviews.bad.examples,
    }
    if config.task == "rating":
        extra["train_mean_rating"] = float(interactions.rating[split.in_training].mean(dtype=np.float64))
    return extra


def _untitled(interactions: Interactions, metadata: Metadata | None) -> int:
    if metadata is None:
        return len(interactions.item_keys)
    texts = [metadata.texts[code] for code in interactions.item_codes]
    return sum(text is None or not text.title for text in texts)


def _seconds(config: DataPrepConfig, name: str) -> int | None:
    value = getattr(config, name)
    return None if value is None else utc_seconds(value, name)


def _day(seconds: int) -> str:
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))
