"""The catalogue of items as models see it: item identity (keys) apart from title identity.

Titles are not unique ("Greatest Hits" 54 times in CDs): a text model ranks *titles*, an ID-based model
ranks *items*, and both are evaluated on both. The map between the two is here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from latentrec.core import UserError
from latentrec.core.text import one_line
from latentrec.data import Dataset

ITEMS_FILE = "items.parquet"
MIN_OVERLAP = 0.5
"""Catalogues with less than this in common are of different shops."""


@dataclass(frozen=True)
class Catalogue:
    """Items in order of ``item_id`` (0 … n_items − 1) and the titles that they share.

    Attributes:
        item_keys: asin or parent_asin of each item; unique.
        titles: title of each item; not unique.
        title_ids: int32 (n_items,), 0 … n_titles − 1; items that share a title share it.
        train_counts: int64 (n_items,), interactions of each item in the training period.
    """

    item_keys: list[str]
    titles: list[str]
    title_ids: np.ndarray
    train_counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        """Check that the columns fit together.

        Raises:
            UserError: lengths differ, keys repeat, or title ids and titles do not name the same groups.
        """
        n_items = len(self.item_keys)
        title_ids = np.asarray(self.title_ids, np.int32)
        counts = np.asarray(self.train_counts, np.int64)
        if counts.size == 0:
            counts = np.zeros(n_items, np.int64)
        object.__setattr__(self, "title_ids", title_ids)
        object.__setattr__(self, "train_counts", counts)
        for name, column in (("titles", self.titles), ("title_ids", title_ids), ("train_counts", counts)):
            if len(column) != n_items:
                raise UserError(
                    f"catalogue: {len(column)} {name} for {n_items} item keys", code="catalog.bad_items"
                )
        if len(self._index) != n_items:
            repeated = next(key for i, key in enumerate(self.item_keys) if self._index[key] != i)
            raise UserError(
                f"catalogue: item_key '{repeated}' occurs more than once", code="catalog.repeated_key"
            )
        if n_items and (title_ids.min() < 0 or len(np.unique(title_ids)) != title_ids.max() + 1):
            raise UserError("catalogue: title_id must run from 0 without gaps", code="catalog.bad_items")
        unique = self.unique_titles
        for item, title in enumerate(self.titles):
            if unique[title_ids[item]] != title:
                raise UserError(
                    f"catalogue: item '{self.item_keys[item]}' has title_id {title_ids[item]} and title "
                    f"{title!r}, another item of that title_id has {unique[title_ids[item]]!r}",
                    code="catalog.bad_items",
                )

    @classmethod
    def from_items(
        cls, item_keys: Sequence[str], titles: Sequence[str], train_counts: np.ndarray | None = None
    ) -> Catalogue:
        """Build a catalogue from keys and titles; title ids follow the titles' first appearance."""
        ids: dict[str, int] = {}
        title_ids = np.array([ids.setdefault(title, len(ids)) for title in titles], np.int32)
        counts = np.zeros(len(title_ids), np.int64) if train_counts is None else train_counts
        return cls(list(item_keys), list(titles), title_ids, counts)

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> Catalogue:
        """The catalogue of a dataset directory."""
        return cls(dataset.item_keys, dataset.titles, dataset.title_ids, dataset.train_counts)

    @classmethod
    def read(cls, path: str | Path) -> Catalogue:
        """Read ``items.parquet`` (of a dataset, of a model directory, or a newer one for serving).

        ``title_id`` and ``train_count`` may be absent: titles are then grouped by their text and every
        count is 0.

        Raises:
            UserError: no such file, a column is missing, or the columns do not fit together.
        """
        try:
            table = pq.read_table(path)
            names = table.column_names
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: not a readable {ITEMS_FILE} ({one_line(error)})", code="catalog.unreadable"
            ) from None
        for column in ("item_key", "title"):
            if column not in names:
                raise UserError(
                    f"{path}: no column '{column}'; it has {', '.join(names)}, "
                    "a catalogue needs item_key and title",
                    code="catalog.missing_column",
                )
        if "item_id" in table.column_names:
            table = table.sort_by("item_id")
            ids = _whole_numbers(table, "item_id", path)
            if not np.array_equal(ids, np.arange(len(ids))):
                raise UserError(
                    f"{path}: item_id must run from 0 to {len(ids) - 1} without gaps",
                    code="catalog.bad_items",
                )
        keys, titles = (_texts(table, column, path) for column in ("item_key", "title"))
        for column, values in (("item_key", keys), ("title", titles)):
            for place, value in enumerate(values):
                if not isinstance(value, str) or not value:
                    cure = "; write keys as text" if isinstance(value, int) else ""
                    raise UserError(
                        f"{path}, row {place + 1:,}: '{column}' is {value!r}, expected text that is "
                        f"not empty{cure}",
                        code="catalog.bad_items",
                    )
        counts = _whole_numbers(table, "train_count", path) if "train_count" in table.column_names else None
        if "title_id" not in table.column_names:
            return cls.from_items(keys, titles, counts)
        title_ids = _whole_numbers(table, "title_id", path)
        return cls(keys, titles, title_ids, np.zeros(len(keys), np.int64) if counts is None else counts)

    def write(self, path: str | Path) -> None:
        """Write the catalogue as ``items.parquet``, readable by :meth:`read` and by other tools."""
        table = pa.table(
            {
                "item_id": pa.array(np.arange(self.n_items, dtype=np.int32)),
                "item_key": pa.array(self.item_keys, pa.string()),
                "title": pa.array(self.titles, pa.string()),
                "title_id": pa.array(self.title_ids),
                "train_count": pa.array(self.train_counts.astype(np.int32)),
            }
        )
        pq.write_table(table, path, compression="zstd")

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_keys)

    @property
    def n_titles(self) -> int:
        """Number of distinct titles."""
        return int(self.title_ids.max()) + 1 if self.n_items else 0

    @cached_property
    def unique_titles(self) -> list[str]:
        """Title of each ``title_id``."""
        first = np.full(self.n_titles, -1, np.int64)
        first[self.title_ids[::-1]] = np.arange(self.n_items)[::-1]
        return [self.titles[item] for item in first]

    @cached_property
    def title_items(self) -> tuple[np.ndarray, np.ndarray]:
        """Items of all titles back to back (CSR): ``offsets`` int64 (n_titles + 1,) and ``items`` int32.

        Within a title: by training popularity, most popular first, then by item id.
        """
        order = np.lexsort((np.arange(self.n_items), -self.train_counts, self.title_ids))
        sizes = np.bincount(self.title_ids, minlength=self.n_titles)
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), order.astype(np.int32)

    def items_of_title(self, title_id: int) -> np.ndarray:
        """int32: items with this title, by training popularity, then by item id."""
        offsets, items = self.title_items
        return items[offsets[title_id] : offsets[title_id + 1]]

    @cached_property
    def popularity_order(self) -> np.ndarray:
        """int32 (n_items,): all items by training popularity, then by item id."""
        return np.lexsort((np.arange(self.n_items), -self.train_counts)).astype(np.int32)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {key: item for item, key in enumerate(self.item_keys)}

    def item_map_from(self, other: Catalogue) -> np.ndarray:
        """int32 (other.n_items,): the id here of each of ``other``'s items by key; −1 where it is gone.

        This is how a model trained on another day's catalogue is scored on this one.
        """
        return np.array([self._index.get(key, -1) for key in other.item_keys], np.int32)

    def overlap(self, other: Catalogue) -> float:
        """Share of the smaller catalogue's items that both have; 0 where one is empty."""
        return self._shared(other) / max(min(self.n_items, other.n_items), 1)

    def kept_by(self, newer: Catalogue) -> float:
        """Share of the items here that a newer catalogue still has; 1 where there are none here."""
        return self._shared(newer) / self.n_items if self.n_items else 1.0

    def _shared(self, other: Catalogue) -> int:
        return sum(key in self._index for key in other.item_keys)


def _texts(table: pa.Table, column: str, path: str | Path) -> list[Any]:
    """A column's values.

    Raises:
        UserError: the file calls text what is not UTF-8.
    """
    try:
        return table[column].to_pylist()
    except UnicodeDecodeError as error:
        shown = f"byte 0x{error.object[error.start]:02x}"
        raise UserError(
            f"{path}: column '{column}' holds text that is not UTF-8 ({shown}); write it again as UTF-8",
            code="catalog.bad_items",
        ) from None


def _whole_numbers(table: pa.Table, name: str, path: str | Path) -> np.ndarray:
    """A column as int64 (n,).

    Raises:
        UserError: a row holds none, or one below 0; the message names the first.
    """
    try:
        values = table[name].cast(pa.int64())
    except (pa.ArrowException, ValueError) as error:
        raise UserError(
            f"{path}: column '{name}' holds no whole numbers ({one_line(error)})", code="catalog.bad_items"
        ) from None
    bad = pc.index(pc.fill_null(pc.less(values, 0), True), True).as_py()
    if bad >= 0:
        shown = values[bad].as_py()
        raise UserError(
            f"{path}, row {bad + 1:,}: '{name}' is {shown}, expected a whole number from 0 on",
            code="catalog.bad_items",
        )
    return values.to_numpy()
