"""Reviews in Parquet: the columns by their names, every value held to the same bounds as in lines."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from latentrec.core import UserError
from latentrec.core.text import printable
from latentrec.data.reading.formats import CLASSIC, HEADERS, NEW, review_columns, time_divisor
from latentrec.data.reading.input_files import InputFile
from latentrec.data.reading.line_reader import BadLines, Column, is_sound
from latentrec.data.reading.parquet import (
    ParquetTable,
    as_number,
    as_text,
    as_time,
    is_valid,
    open_parquet,
)

_TIME_SAMPLE = 200
"""Rows by which the unit of whole-number times is recognized, as many as first lines of a text."""
_CAST = {"text": as_text, "number": as_number, "time": as_time}
_KIND = {"text": pa.string(), "number": pa.float64(), "time": pa.int64()}


@dataclass(frozen=True)
class ReviewSchema:
    """Which columns of a table hold what.

    Attributes:
        name: for manifests and reports.
        fields: names in the file of user, item, rating and time.
        text: names of the review's text and headline, or empty.
        low: the least rating.
        usual_divisor: of whole-number times whose size does not tell: 1 for seconds, 1000 for milliseconds.
        uses: name → what the column is read as: ``text``, ``number`` or ``time``.
    """

    name: str
    fields: tuple[str, str, str, str]
    text: tuple[str, ...]
    low: float
    usual_divisor: int
    uses: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Derive ``uses``."""
        uses = dict(zip(self.fields, ("text", "text", "number", "time"), strict=True))
        object.__setattr__(self, "uses", uses | dict.fromkeys(self.text, "text"))


def recognize_review_table(file: InputFile) -> str:
    """Name of a table's format; its schema is checked, and nothing but its index fetched.

    Raises:
        UserError: the file is damaged, or its columns are not those of reviews.
    """
    with open_parquet(file, whole=False) as table:
        schema = review_schema(table)
        for name in schema.fields:
            table.require(name, schema.uses[name])
    return schema.name


def review_schema(table: ParquetTable) -> ReviewSchema:
    """By the names of Amazon's fields, else by those that a header of a CSV may have.

    Raises:
        UserError: a column is missing; the message says which, and what there is.
    """
    lowered = {name.lower(): name for name in table.names()}
    for edition, known, text, usual in (
        ("amazon2018", CLASSIC, ("reviewText", "summary"), 1),
        ("amazon2023", NEW, ("text", "title"), 1000),
    ):
        if all(name.lower() in lowered for name in known):
            return _schema(table, f"parquet ({edition})", known, text, 1, usual)
    found = {column: table.find(names) for column, names in HEADERS.items()}
    absent = next((column for column, name in found.items() if name is None), None)
    if absent is not None:
        hint = ""
        if absent == "user" and {"asin", "parent_asin", "title"} & set(lowered):
            hint = "; if these are products, give them as --metadata (META)"
        shown = ", ".join(printable(name)[:30] for name in table.names()[:12]) or "none"
        raise UserError(
            f"{table.uri}: no column for '{absent}' (known names: {', '.join(HEADERS[absent])}); its "
            f"columns are {shown}; rename one where it is exported (SELECT … AS {absent}){hint}",
            code="reviews.missing_field",
        )
    return _schema(table, "parquet (ratings)", [*found.values()], ("review_text", "summary"), 0.5, 1)


def _schema(
    table: ParquetTable, name: str, fields: Sequence[str | None], text: Sequence[str], low: float, usual: int
) -> ReviewSchema:
    """With every name as it is spelled in the file: Hive's tables are all lower case."""
    user, item, rating, time = (str(table.find((str(field),))) for field in fields)
    texts = tuple(table.find((field,)) or field for field in text)
    return ReviewSchema(name, (user, item, rating, time), texts, low, usual)


@dataclass(frozen=True)
class ReviewReader:
    """An open table of reviews.

    Attributes:
        table: the file.
        schema: which columns hold what.
        time_divisor: 1 where times are seconds, timestamps or dates, 1000 for milliseconds.
        columns: what is read, in order: user, item, rating, time, and texts where asked for.
    """

    table: ParquetTable
    schema: ReviewSchema
    time_divisor: int
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, table: ParquetTable, *, with_texts: bool) -> ReviewReader:
        """Check the schema, and tell the unit of the times.

        Raises:
            UserError: a column is missing or of a wrong type.
        """
        schema = review_schema(table)
        divisor = _divisor_of(table, schema)
        columns = review_columns(*schema.fields, divisor=divisor, low=schema.low)
        if with_texts:
            columns += tuple(Column(name, pa.string(), required=False) for name in schema.text)
        for column in columns:
            if column.name in table.names():
                table.require(column.name, schema.uses[column.name])
        return cls(table, schema, divisor, columns)

    def tables(self, bad: BadLines) -> Generator[tuple[pa.Table, int, int]]:
        """The rows that can be used, batch by batch.

        Returns:
            A table with each of ``columns``; rows and bytes that were read for it.

        Raises:
            UserError: the file is damaged, or a row is bad and may not be skipped.
        """
        own = [c.name for c in self.columns if c.name in self.table.parquet.schema_arrow.names]
        done = 0
        for batch in self.table.batches(own):
            made = [self._column(column, batch) for column in self.columns]
            good = _good_rows(pa.table(made, [c.name for c in self.columns]), self, done + 1, bad)
            yield good, batch.num_rows, self.table.share(done, batch.num_rows)
            done += batch.num_rows

    def _column(self, column: Column, batch: pa.RecordBatch) -> pa.Array:
        use = self.schema.uses[column.name]
        if column.name in batch.schema.names:
            return _CAST[use](batch.column(column.name))
        if column.name in self.table.folders:
            value = pa.scalar(self.table.constant(column.name, use), _KIND[use])
            return pa.repeat(value, batch.num_rows)
        return pa.nulls(batch.num_rows, _KIND[use])  # a text that the table does not have


def _divisor_of(table: ParquetTable, schema: ReviewSchema) -> int:
    name = schema.fields[3]
    table.require(name, "time")
    if name not in table.parquet.schema_arrow.names:
        value = table.constant(name, "time")
        return time_divisor([] if value is None else [int(value)], schema.usual_divisor)
    if not pa.types.is_integer(table.kind(name)):
        return 1  # timestamps and dates become seconds
    batch = next(table.batches([name], _TIME_SAMPLE), None)
    times = [] if batch is None else [time for time in batch.column(0).to_pylist() if time is not None]
    return time_divisor(times, schema.usual_divisor)


def _good_rows(table: pa.Table, reader: ReviewReader, first_row: int, bad: BadLines) -> pa.Table:
    """The table as it is where all is well, else without its bad rows, each of which is counted."""
    keys = [c.name for c in reader.columns if c.required and pa.types.is_string(c.kind)]
    whole = all(is_valid(column) for column in table.columns)
    if whole and is_sound(table, reader.columns) and not any(_holds_zero(table[key]) for key in keys):
        return table
    good = []
    for index in range(len(table)):
        problem = _problem(table, index, reader.columns)
        good.append(problem is None)
        if problem is not None:
            bad.add(reader.table.uri, first_row + index, problem, unit="row")
    return table.filter(pa.array(good, pa.bool_()))


def _holds_zero(values: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.match_substring(values, "\0")).as_py())


def _problem(table: pa.Table, index: int, columns: tuple[Column, ...]) -> str | None:
    row = {}
    for column in columns:
        try:
            row[column.name] = table[column.name][index].as_py()
        except UnicodeDecodeError as error:
            return f"'{column.name}' is not UTF-8 (byte 0x{error.object[error.start]:02x})"
        if problem := column.problem(row):
            return problem
    return None
