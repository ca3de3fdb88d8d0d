"""Product metadata in Parquet, row by row under the names of Amazon's fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from latentrec.core import UserError
from latentrec.core.text import printable
from latentrec.data.reading.formats import HEADERS, parse_object
from latentrec.data.reading.input_files import InputFile
from latentrec.data.reading.line_reader import BadLines, Column
from latentrec.data.reading.parquet import ParquetTable, as_text, is_valid, open_parquet

_BATCH_ROWS = 1 << 12
_KEYS = ("parent_asin", "asin", *HEADERS["item"])
_FIELDS = ("title", "brand", "store", "details", "description", "categories", "category", "main_category")


class MetadataRow:
    """One row, whose values become Python's only when they are asked for: most products have no review."""

    def __init__(self, batch: pa.RecordBatch, index: int):
        self._batch, self._index = batch, index

    def get(self, name: str) -> Any:
        """The value of one of Amazon's fields, as JSON lines would have it; ``None`` where absent."""
        place = self._batch.schema.get_field_index(name)
        value = self._batch.column(place)[self._index].as_py() if place >= 0 else None
        if name == "details" and isinstance(value, str):
            return parse_object(value)
        if name == "details" and isinstance(value, list):  # a map
            return dict(value)
        return value


@dataclass(frozen=True)
class MetadataReader:
    """An open table of products.

    Attributes:
        table: the file.
        key: the item's column.
        fields: Amazon's name → name in the file, of the fields that there are.
    """

    table: ParquetTable
    key: str
    fields: dict[str, str]

    @classmethod
    def of(cls, table: ParquetTable) -> MetadataReader:
        """Find the columns.

        Raises:
            UserError: the item or its title has no column, or a key's type cannot be read; or the table
                holds reviews.
        """
        if table.find(HEADERS["user"]) and table.find(HEADERS["rating"]):
            raise UserError(
                f"{table.uri} holds reviews and not product metadata; give it as --reviews (REVIEWS), and as "
                "--metadata (META) the file of the products",
                code="metadata.is_reviews",
            )
        fields = {name: found for name in _FIELDS if (found := table.find((name,)))}
        key = table.find(_KEYS)
        for what, there, known in (("item", key, _KEYS), ("title", fields.get("title"), ("title",))):
            if there is None:
                shown = ", ".join(printable(name)[:30] for name in table.names()[:12]) or "none"
                raise UserError(
                    f"{table.uri}: no column for '{what}' (known names: {', '.join(dict.fromkeys(known))}); "
                    f"its columns are {shown}; rename one where it is exported (SELECT … AS {what})",
                    code="metadata.missing_field",
                )
        assert key is not None
        table.require(key, "text")
        table.require(fields["title"], "text")
        return cls(table, key, fields)

    @property
    def name(self) -> str:
        """Of the format, for manifests and reports."""
        return f"parquet metadata ({self.key})"

    def batches(self, bad: BadLines) -> Iterator[tuple[Iterator[tuple[str, Any]], int, int]]:
        """(key, :class:`MetadataRow`) of every row with a key; rows and bytes that were read for them.

        Raises:
            UserError: the file is damaged, or a row is bad and may not be skipped.
        """
        own = self.table.parquet.schema_arrow
        paths = [_path(own, name) for name in (self.key, *self.fields.values()) if name in own.names]
        done = 0
        for batch in self.table.batches(paths, _BATCH_ROWS):
            rows = batch.num_rows
            yield self._rows(batch, done + 1, bad), rows, self.table.share(done, rows)
            done += rows

    def _rows(self, batch: pa.RecordBatch, first: int, bad: BadLines) -> Iterator[tuple[str, Any]]:
        rows = batch.num_rows
        keys = as_text(batch.column(self.key)) if self.key in batch.schema.names else self._repeated(rows)
        named = {ours: batch.column(name) for ours, name in self.fields.items() if name in batch.schema.names}
        fields = pa.RecordBatch.from_arrays([*named.values()], [*named])
        whole = is_valid(keys) and is_valid(fields)
        column = Column(self.key, pa.string())
        for index in range(rows):
            if not whole and not (is_valid(keys.slice(index, 1)) and is_valid(fields.slice(index, 1))):
                bad.add(self.table.uri, first + index, "holds text that is not UTF-8", unit="row")
                continue
            key = keys[index].as_py()
            if problem := column.problem({self.key: key}):
                bad.add(self.table.uri, first + index, problem, unit="row")
                continue
            yield key, MetadataRow(fields, index)

    def _repeated(self, rows: int) -> pa.Array:
        return pa.repeat(pa.scalar(self.table.folders[self.key], pa.string()), rows)


def recognize_metadata_table(file: InputFile) -> str:
    """Name of a table's format; nothing but its index is fetched.

    Raises:
        UserError: the file is damaged, or its columns are not those of products.
    """
    with open_parquet(file, whole=False) as table:
        return MetadataReader.of(table).name


def _path(schema: pa.Schema, name: str) -> str:
    """Of a struct with hundreds of details only the brand is read."""
    kind = schema.field(name).type
    if name.lower() == "details" and pa.types.is_struct(kind) and kind.get_field_index("Brand") >= 0:
        return f"{name}.Brand"
    return name
