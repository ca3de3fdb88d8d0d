"""From review files to a dataset directory: read, filter, number, split, check, write, report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latentrec.core import UserError
from latentrec.data.amazon_downloads import fetch_category
from latentrec.data.baseline_dataset import read_previous
from latentrec.data.data_prep_config import DataPrepConfig
from latentrec.data.data_report import write_report
from latentrec.data.dataset_summary import DatasetSummary, counts_of, day, extra_of, run_checks
from latentrec.data.filters import FilterResult, apply_filters, reachable_items
from latentrec.data.parquet_writer import (
    arrange,
    interactions_table,
    items_table,
    users_table,
    write_samples,
    write_table,
)
from latentrec.data.reading.input_files import (
    InputFile,
    find_inputs,
    require_fingerprint,
    require_unchanged,
)
from latentrec.data.reading.line_reader import BadLines
from latentrec.data.reading.metadata import Metadata, read_metadata
from latentrec.data.reading.reviews import Reviews, read_reviews
from latentrec.data.splits import SPLIT_NAMES, split_samples
from latentrec.data.validation import require
from latentrec.storage import ArtifactWriter, Manifest


def prepare(config: DataPrepConfig, output: str | Path, *, inputs_fingerprint: str = "") -> Manifest:
    """Make a dataset directory.

    Args:
        config: what to read and how; a profile in it is applied here.
        output: the directory; see :mod:`latentrec.storage.output` for what may be replaced. It may be that of
            ``config.previous``, which is read first.
        inputs_fingerprint: what preflight found the inputs to hold; empty: no preflight ran.

    Returns:
        The manifest; ``extra`` holds ``window``, ``source``, ``formats``, ``funnel``, ``checks``,
        ``has_titles``, ``train_end``, ``boundaries`` and, for the rating task, ``train_mean_rating``.

    Raises:
        UserError: bad input or configuration, inputs that changed since preflight or while they were read, or
            a violated check; nothing is written then.
    """
    config = with_category_files(config.resolved())
    sources = (*config.reviews, *config.metadata)
    with ArtifactWriter(output, "dataset", config, identity=config.identity(), sources=sources) as writer:
        require_fingerprint(config.reviews, config.metadata, inputs_fingerprint)
        reviews, metadata = find_inputs(config.reviews), find_inputs(config.metadata)
        previous = read_previous(config.previous) if config.previous else None
        prepared = read_filter_split(config, reviews, metadata, writer.path)
        checks = run_checks(prepared, previous)
        require(checks)
        write_tables(writer.path, prepared)
        require_unchanged([*reviews, *metadata])
        writer.counts = counts_of(prepared)
        writer.extra = extra_of(prepared, checks)
        if previous is not None:
            writer.extra["previous"] = {"uri": previous.uri, "fingerprint": previous.fingerprint}
        write_report(writer.path, prepared, checks)
    return writer.manifest


def read_filter_split(
    config: DataPrepConfig, review_files: list[InputFile], metadata_files: list[InputFile], folder: Path
) -> DatasetSummary:
    """Everything up to the checks, in memory; texts of reviews, for the rating task only, wait in ``folder``.

    Raises:
        UserError: bad input, or nothing is left.
    """
    bad = BadLines(config.skip_bad_lines, config.max_bad_share)
    reviews = read_reviews(review_files, bad, texts_in=folder if config.task == "rating" else None)
    metadata = None
    if metadata_files:
        metadata = read_metadata(
            metadata_files,
            reviews.events.item_keys,
            BadLines(config.skip_bad_lines, config.max_bad_share),
            wanted=reachable_items(reviews.events, config.seconds("window_end"), config.k_core),
            title_filter=config.title_filter,
            max_title_words=config.max_title_words,
        )
    filtered = _filter(config, reviews, metadata)
    interactions = arrange(reviews.events, filtered.kept)
    split = split_samples(
        interactions.user,
        interactions.time,
        config.split,
        valid_start=config.seconds("valid_start"),
        test_start=config.seconds("test_start"),
    )
    return DatasetSummary(config, reviews, metadata, filtered, interactions, split)


def write_tables(directory: Path, prepared: DatasetSummary) -> None:
    """Write the Parquet files."""
    interactions, split = prepared.interactions, prepared.split
    is_rating = prepared.config.task == "rating"
    texts = prepared.reviews.texts and prepared.reviews.texts.take(interactions.source_row)
    items = items_table(interactions, prepared.metadata, split, is_rating=is_rating)
    write_table(directory / "items.parquet", items)
    write_table(directory / "users.parquet", users_table(interactions, split, is_rating=is_rating))
    write_table(directory / "interactions.parquet", interactions_table(interactions, texts))
    for name in SPLIT_NAMES:
        write_samples(
            directory / f"{name}.parquet",
            interactions,
            split.targets(name),
            split.position,
            max_history=prepared.config.max_history,
            is_rating=is_rating,
        )


def with_category_files(config: DataPrepConfig) -> DataPrepConfig:
    """Replace ``category`` by local copies of its public files, fetched when not there yet.

    Raises:
        UserError: no such category, or the site cannot be reached.
    """
    if config.category is None:
        return config
    reviews, metadata = fetch_category(config.category, config.category_year, config.cache_dir)
    return config.replace(category=None, reviews=(reviews,), metadata=(metadata,))


def is_no_new_data(manifest: Manifest) -> bool:
    """Whether a dataset equals the one of the run before: same content, same configuration."""
    previous = manifest.extra.get("previous") or {}
    return previous.get("fingerprint") == manifest.fingerprint


def _filter(config: DataPrepConfig, reviews: Reviews, metadata: Metadata | None) -> FilterResult:
    events = reviews.events
    usable = np.ones(len(events.item_keys), bool)
    if metadata is not None and config.title_filter != "none":
        usable = np.array(metadata.usable, bool)
    filtered = apply_filters(
        events,
        usable,
        window_start=config.seconds("window_start"),
        window_end=config.seconds("window_end"),
        min_items=config.min_items,
        widen_months=config.widen_months,
        drop_duplicates=config.duplicates == "drop",
        k_core=config.k_core,
        max_users=config.max_users,
        seed=config.seed,
    )
    if not len(filtered.kept):
        funnel = ", ".join(f"{step.name} {step.interactions:,}" for step in filtered.funnel)
        span = f"{day(int(events.time.min()))} to {day(int(events.time.max()))}"
        raise UserError(
            f"no interaction is left after filtering ({funnel}); the reviews run from {span}; "
            "widen the window, or loosen --title-filter or --k-core",
            code="dataset.nothing_left",
        )
    return filtered
