"""Files of lines to columns: whole blocks where all is well, line by line where something is not.

A parser turns a block into columns fast; when it refuses, or a value is out of bounds, the block is gone
through line by line, so that the message names the file, the line, the field and the value.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.core.text import printable
from latentrec.data.reading.input_files import Block, map_in_order

R = TypeVar("R")
_LARGEST_WHOLE = 1 << 63
_SURROGATE = re.compile("[\ud800-\udfff]")
UNFIT = re.compile("[\0\ud800-\udfff]")
"""Characters that no key can hold."""


@dataclass(frozen=True)
class Column:
    """One field of a line that is read.

    Attributes:
        name: key in the file.
        kind: Arrow type: string, float64 or int64.
        required: absent or null is an error.
        low, high: bounds of a number, inclusive.
        allowed: the bounds in words, for messages.
    """

    name: str
    kind: pa.DataType
    required: bool = True
    low: float | None = None
    high: float | None = None
    allowed: str = ""

    def problem(self, row: dict[str, Any]) -> str | None:
        """What is wrong with this field of a line, or ``None``."""
        value = row.get(self.name)
        if value is None:
            return f"'{self.name}' is missing" if self.required else None
        if pa.types.is_string(self.kind):
            if not isinstance(value, str):
                return f"'{self.name}' is {_show(value)}, expected text"
            if self.required and not value:
                return f"'{self.name}' is empty"
            if self.required and (sign := UNFIT.search(value)):
                code = f"U+{ord(sign[0]):04X}"
                return f"'{self.name}' is {_show(value)}, which holds {code}, no character of a key"
            return None
        number = self.number(value)
        if number is None or (self.low is not None and not self.low <= number <= self.high):  # type: ignore[operator]
            return f"'{self.name}' is {_show(value)}, expected {self._expected()}"
        return None

    def value(self, row: dict[str, Any]) -> Any:
        """The field as its column takes it, of a line without a problem."""
        value = row.get(self.name)
        if value is None:
            return None
        return without_surrogates(value) if pa.types.is_string(self.kind) else self.number(value)

    def number(self, value: Any) -> int | float | None:
        """A finite number of the column's kind, or ``None``; 1500000000.0 is a whole number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(value, int) and abs(value) > _LARGEST_WHOLE:  # 10^400 has no float
            return None
        if not math.isfinite(value):
            return None
        if not pa.types.is_integer(self.kind):
            return float(value)
        return int(value) if value == int(value) else None

    def _expected(self) -> str:
        noun = "a whole number" if pa.types.is_integer(self.kind) else "a number"
        return f"{noun} {self.allowed}".strip()


@dataclass
class BadLines:
    """Counts lines that cannot be used; stops at the first unless they may be skipped.

    Attributes:
        skip: drop them instead of stopping.
        max_share: of all lines; above it reading fails although lines may be skipped.
        count: so far.
        examples: the first few messages, for the report.
    """

    skip: bool
    max_share: float
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, uri: str, line: int, problem: str, *, unit: str = "line") -> None:
        """Count one bad line, or row of a table.

        Raises:
            UserError: lines may not be skipped.
        """
        message = f"{redact(uri)}, {unit} {line:,}: {problem}"
        if not self.skip:
            raise UserError(
                f"{message}; correct the {unit}, or rerun with --skip-bad-lines to drop such {unit}s",
                code="reviews.bad_line",
            )
        self.count += 1
        if len(self.examples) < 5:
            self.examples.append(message)

    def check_share(self, uri: str, lines: int) -> None:
        """Fail when too many lines were dropped.

        Raises:
            UserError: the share is above ``max_share``.
        """
        if lines and self.count / lines > self.max_share:
            raise UserError(
                f"{uri}: {self.count:,} of {lines:,} lines cannot be read ({self.count / lines:.1%}), "
                f"more than --max-bad-share {self.max_share:g} allows; the first: {self.examples[0]}",
                code="reviews.too_many_bad_lines",
            )


class LineParser(Protocol):
    """How lines of one kind become columns."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is read, in order."""
        ...

    def parse(self, data: bytes) -> pa.Table | None:
        """All lines of a block as columns, or ``None`` when any line cannot be read."""
        ...

    def row(self, line: bytes) -> Any:
        """One line as a dictionary of plain values.

        Raises:
            ValueError: it cannot be read; the message says why, without the line's number.
        """
        ...


def read_tables(
    blocks: Iterator[Block], parser: LineParser, bad: BadLines
) -> Iterator[tuple[Block, pa.Table]]:
    """The columns of a file, block by block, parsed by as many threads as there are processors.

    Raises:
        UserError: the file is damaged, or a line is bad and may not be skipped; the message names it.
    """

    def parse(block: Block) -> pa.Table | None:
        if b"\0" in block.data or b"\\u0000" in block.data:
            return None  # zero bytes: line by line
        if not block.data.isascii():
            try:
                block.data.decode("utf-8")
            except UnicodeDecodeError:
                return None
        table = parser.parse(block.data)
        is_good = table is not None and table.num_rows == block.lines and is_sound(table, parser.columns)
        return table if is_good else None

    for block, table in map_in_order(parse, blocks, min(os.cpu_count() or 1, 8)):
        yield block, _parse_by_line(block, parser, bad) if table is None else table


def _parse_by_line(block: Block, parser: LineParser, bad: BadLines) -> pa.Table:
    """The columns of a block in which something is unusual, each line parsed by itself."""

    def checked(line: bytes) -> dict[str, Any]:
        row = parser.row(line)
        if problem := _row_problem(row, parser.columns):
            raise ValueError(problem)
        return row

    rows = [*good_lines(block, checked, bad)]
    schema = schema_of(parser.columns)
    columns = [[column.value(row) for row in rows] for column in parser.columns]
    return pa.table(
        [pa.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)], schema
    )


def good_lines(block: Block, parse: Callable[[bytes], R], bad: BadLines) -> Iterator[R]:
    """What ``parse`` makes of every line that it can read; the others go to ``bad``.

    Raises:
        UserError: a line is bad and may not be skipped; the message names it.
    """
    for number, line in enumerate(block.data.split(b"\n"), block.first_line):
        if not line.strip():
            continue
        try:
            yield parse(line)
        except UnicodeDecodeError as error:
            bad.add(block.uri, number, f"not UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1})")
        except RecursionError:
            bad.add(block.uri, number, "nested too deeply")
        except ValueError as error:
            bad.add(block.uri, number, str(error))


def is_sound(table: pa.Table, columns: tuple[Column, ...]) -> bool:
    """Whether every required value is there, no key is empty, and every number is inside its bounds."""
    for column in columns:
        values = table[column.name]
        if column.required and values.null_count:
            return False
        if pa.types.is_string(column.kind):
            if column.required and len(values) and pc.min(pc.binary_length(values)).as_py() == 0:
                return False
        elif column.low is not None and len(values):
            found = pc.min_max(values).as_py()
            if not (column.low <= found["min"] and found["max"] <= column.high):
                return False
            if pa.types.is_floating(column.kind) and pc.any(pc.is_nan(values)).as_py():
                return False
    return True


def schema_of(columns: tuple[Column, ...]) -> pa.Schema:
    """Arrow schema of the columns."""
    return pa.schema([(column.name, column.kind) for column in columns])


def without_surrogates(text: str) -> str:
    """Half a surrogate pair (an emoji that was cut in two) becomes U+FFFD: no file can hold it."""
    return _SURROGATE.sub("\ufffd", text) if not text.isascii() else text


def _row_problem(row: Any, columns: tuple[Column, ...]) -> str | None:
    if not isinstance(row, dict):
        return f"holds {_show(row)}, expected an object in braces"
    for column in columns:
        problem = column.problem(row)
        if problem:
            return problem
    return None


def _show(value: Any) -> str:
    if isinstance(value, str):
        text = f"'{value[:80]}'"
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST_WHOLE:
        text = f"a whole number of {value.bit_length() * 0.30103:,.0f} digits"
    else:
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (ValueError, RecursionError):
            text = f"a {type(value).__name__}"
    text = printable(text)
    return text if len(text) <= 60 else text[:57] + "…"
