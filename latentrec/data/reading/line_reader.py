"""Files of lines to columns: whole blocks where all is well, line by line where something is not.

A parser turns a block into columns fast; when it refuses, or a value is out of bounds, the block is gone
through line by line, so that the message names the file, the line, the field and the value.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from latentrec.core import UserError
from latentrec.data.reading.input_files import Block, InputFile, map_in_order, read_blocks


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
            return f"'{self.name}' is empty" if self.required and not value else None
        is_whole = pa.types.is_integer(self.kind)
        if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
            return f"'{self.name}' is {_show(value)}, expected {self._expected()}"
        if not math.isfinite(value) or (self.low is not None and not self.low <= value <= self.high):  # type: ignore[operator]
            return f"'{self.name}' is {_show(value)}, expected {self._expected()}"
        return None

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

    def add(self, uri: str, line: int, problem: str) -> None:
        """Count one bad line.

        Raises:
            UserError: lines may not be skipped.
        """
        message = f"{uri}, line {line:,}: {problem}"
        if not self.skip:
            raise UserError(f"{message}; mend the line, or rerun with --skip-bad-lines to drop such lines")
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
                f"more than --max-bad-share {self.max_share:g} allows; the first: {self.examples[0]}"
            )


class LineParser(Protocol):
    """How lines of one kind become columns."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is read, in order."""
        ...

    @property
    def skip_lines(self) -> int:
        """Lines at the top of a file that hold no row (a header)."""
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


def read_tables(file: InputFile, parser: LineParser, bad: BadLines) -> Iterator[tuple[Block, pa.Table]]:
    """The columns of a file, block by block, parsed by as many threads as there are processors.

    Fills in ``file.lines``.

    Raises:
        UserError: the file is damaged, or a line is bad and may not be skipped; the message names it.
    """

    def parse(block: Block) -> tuple[pa.Table | None, int]:
        lines = block.count_lines()
        if not block.data.isascii():
            try:
                block.data.decode("utf-8")
            except UnicodeDecodeError:
                return None, lines
        table = parser.parse(block.data)
        is_good = table is not None and table.num_rows == lines and is_sound(table, parser.columns)
        return (table if is_good else None), lines

    file.lines = 0
    for block, (table, lines) in map_in_order(
        parse, _below_header(file, parser), min(os.cpu_count() or 1, 8)
    ):
        if table is None:
            table = parse_by_line(block, file.lines + parser.skip_lines + 1, parser, bad)
        file.lines += lines
        yield block, table


def parse_by_line(block: Block, first_line: int, parser: LineParser, bad: BadLines) -> pa.Table:
    """The columns of a block in which something is unusual, each line judged by itself.

    Raises:
        UserError: a line is bad and may not be skipped; the message names it.
    """
    numbered = list(good_lines(block, first_line, parser, bad))
    table = parser.parse(b"\n".join(line for _, line in numbered))
    if table is not None and table.num_rows == len(numbered):
        return table
    good = []
    for number, line in numbered:  # the line's own reading had no objection, the block parser has
        table = parser.parse(line)
        if table is not None and table.num_rows == 1:
            good.append(table)
        else:
            bad.add(block.uri, number, "cannot be read (is a key or a field given twice?)")
    return pa.concat_tables(good) if good else schema_of(parser.columns).empty_table()


def good_lines(
    block: Block, first_line: int, parser: LineParser, bad: BadLines
) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of every usable line; the others go to ``bad``."""
    for number, line in enumerate(block.data.split(b"\n"), first_line):
        if not line.strip():
            continue
        try:
            row = parser.row(line)
        except UnicodeDecodeError as error:
            bad.add(block.uri, number, f"not UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1})")
            continue
        except (ValueError, RecursionError) as error:
            bad.add(block.uri, number, str(error))
            continue
        problem = _row_problem(row, parser.columns)
        if problem:
            bad.add(block.uri, number, problem)
        else:
            yield number, line


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


def _below_header(file: InputFile, parser: LineParser) -> Iterator[Block]:
    to_skip = parser.skip_lines
    for block in read_blocks(file):
        data = block.data
        while to_skip and data:
            data, to_skip = data[data.find(b"\n") + 1 or len(data) :], to_skip - 1
        yield Block(block.uri, data, block.raw_bytes) if data is not block.data else block


def _row_problem(row: Any, columns: tuple[Column, ...]) -> str | None:
    if not isinstance(row, dict):
        return f"holds {_show(row)}, expected an object in braces"
    for column in columns:
        problem = column.problem(row)
        if problem:
            return problem
    return None


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else f"'{value}'"
    return text if len(text) <= 60 else text[:57] + "…"
