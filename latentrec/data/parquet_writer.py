"""The Parquet files of a dataset directory, written in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from latentrec.data.reading.metadata import Metadata, titles_of
from latentrec.data.reading.reviews import Events
from latentrec.data.splits import Split, history_rows

SAMPLES_PER_WRITE = 1 << 17


@dataclass(frozen=True)
class Interactions:
    """Kept events sorted by user, then time, then file order; ids are those of the dataset.

    Attributes:
        user, item: int32 (n,); ids in the order of the sorted keys.
        rating: float32 (n,).
        time: int64 (n,), UTC seconds.
        source_row: integers (n,), index of the event as it was read.
        user_keys, item_keys: Arrow strings, ascending; the place is the id.
        item_codes: int32 (n_items,), code of each item in :class:`Events`.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray
    source_row: np.ndarray
    user_keys: pa.Array
    item_keys: pa.Array
    item_codes: np.ndarray

    def __len__(self) -> int:
        """Number of events."""
        return len(self.user)


def arrange(events: Events, kept: np.ndarray) -> Interactions:
    """Number users and items by the order of their keys and sort the kept events.

    Ids then depend on which users and items remain and not on the order of lines or files.
    """
    user, user_keys, _ = _renumber(events.user[kept], events.user_keys)
    item, item_keys, item_codes = _renumber(events.item[kept], events.item_keys)
    time = events.time[kept]
    order = _order(user, time)
    return Interactions(
        user=user[order],
        item=item[order],
        rating=events.rating[kept][order],
        time=time[order],
        source_row=kept[order],
        user_keys=user_keys,
        item_keys=item_keys,
        item_codes=item_codes,
    )


def items_table(
    interactions: Interactions, metadata: Metadata | None, split: Split, *, is_rating: bool
) -> pa.Table:
    """``items.parquet``: keys, titles, title ids, training counts and, where known, brand and texts."""
    n = len(interactions.item_keys)
    titles = pa.array(titles_of(metadata, interactions.item_keys, interactions.item_codes), pa.string())
    unique = pc.unique(titles)
    unique = unique.take(pc.sort_indices(unique))
    trained = interactions.item[split.in_training]
    columns: dict[str, pa.Array] = {
        "item_id": pa.array(np.arange(n, dtype=np.int32)),
        "item_key": interactions.item_keys.cast(pa.string()),
        "title": titles,
        "title_id": pc.index_in(titles, unique).cast(pa.int32()),
        "train_count": pa.array(np.bincount(trained, minlength=n).astype(np.int32)),
    }
    if metadata is not None:
        texts = [metadata.texts[code] for code in interactions.item_codes]
        for name in ("brand", "description", "categories"):
            values = pa.array([getattr(text, name) if text else None for text in texts], pa.string())
            if values.null_count < n:
                columns[name] = values
    if is_rating:
        columns["train_mean_rating"] = _means(trained, interactions.rating[split.in_training], n)
    return pa.table(columns)


def users_table(interactions: Interactions, split: Split, *, is_rating: bool) -> pa.Table:
    """``users.parquet``."""
    n = len(interactions.user_keys)
    columns: dict[str, pa.Array] = {
        "user_id": pa.array(np.arange(n, dtype=np.int32)),
        "user_key": interactions.user_keys.cast(pa.string()),
    }
    if is_rating:
        columns["train_mean_rating"] = _means(
            interactions.user[split.in_training], interactions.rating[split.in_training], n
        )
    return pa.table(columns)


def interactions_table(interactions: Interactions, texts: pa.Table | None) -> pa.Table:
    """``interactions.parquet``; for the rating task with the columns of ``texts``."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "user_id": pa.array(interactions.user),
        "item_id": pa.array(interactions.item),
        "rating": pa.array(interactions.rating),
        "timestamp": pa.array(interactions.time),
    }
    if texts is not None:
        columns.update(zip(texts.column_names, texts.columns, strict=True))
    return pa.table(columns)


def write_samples(
    path: Path,
    interactions: Interactions,
    targets: np.ndarray,
    position: np.ndarray,
    *,
    max_history: int,
    is_rating: bool,
) -> None:
    """One split's Parquet file, a bounded number of samples at a time.

    For the rating task ``row`` and ``history_rows`` are places in ``interactions.parquet``.
    """
    writer = None
    try:
        for start in range(0, max(len(targets), 1), SAMPLES_PER_WRITE):
            rows = targets[start : start + SAMPLES_PER_WRITE]
            offsets, history = history_rows(rows, position, max_history)
            list_offsets = pa.array(offsets.astype(np.int32))
            columns: dict[str, pa.Array] = {
                "user_id": pa.array(interactions.user[rows]),
                "history": pa.ListArray.from_arrays(list_offsets, pa.array(interactions.item[history])),
                "target": pa.array(interactions.item[rows]),
                "rating": pa.array(interactions.rating[rows]),
                "timestamp": pa.array(interactions.time[rows]),
            }
            if is_rating:
                columns["row"] = pa.array(rows.astype(np.int64))
                columns["history_rows"] = pa.ListArray.from_arrays(
                    list_offsets, pa.array(history.astype(np.int64))
                )
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def write_table(path: Path, table: pa.Table) -> None:
    """Write one Parquet file."""
    pq.write_table(table, path, compression="zstd")


def _renumber(codes: np.ndarray, keys: pa.Array) -> tuple[np.ndarray, pa.Array, np.ndarray]:
    """(new ids of the events, keys in order of id, old code of each id)."""
    seen = np.zeros(len(keys), bool)
    seen[codes] = True
    present = np.flatnonzero(seen)
    found = keys.take(pa.array(present))
    order = pc.sort_indices(found).to_numpy()
    new_id = np.empty(len(keys), np.int32)
    new_id[present[order]] = np.arange(len(present), dtype=np.int32)
    return new_id[codes], found.take(pa.array(order)), present[order].astype(np.int32)


def _order(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Indices that sort by user, then time, then place."""
    if len(time) and int(time.min()) >= 0 and int(time.max()) < 2**32:
        return np.argsort((user.astype(np.int64) << 32) | time, kind="stable")
    return np.lexsort((time, user))


def _means(codes: np.ndarray, ratings: np.ndarray, n: int) -> pa.Array:
    """Mean rating by code, float64; null where there is no event."""
    counts = np.bincount(codes, minlength=n)
    sums = np.bincount(codes, weights=ratings, minlength=n)
    means = sums / np.maximum(counts, 1)
    return pa.array(means, mask=counts == 0)
