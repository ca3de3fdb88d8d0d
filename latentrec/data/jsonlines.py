"""JSON lines to columns: Arrow's parser for whole blocks, a line-by-line search where a block fails.

Arrow says that a block is bad but not reliably where. The search goes through the block with the standard
library and names the file, the line, the field and the value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from latentrec.core import UserError
from latentrec.data.sources import Block

PARSE_BYTES = 4 << 20


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


def parse_block(block: Block, columns: tuple[Column, ...], bad: BadLines) -> pa.Table:
    """The columns of a block's lines; fields that are not asked for are skipped unread.

    Raises:
        UserError: a line is bad and may not be skipped; the message names it.
    """
    table = _parse(block.data, columns)
    if table is not None and is_sound(table, columns) and table.num_rows == _lines(block.data):
        return table
    good = [line for _, line, _ in good_rows(block, columns, bad)]
    if not good:
        return schema_of(columns).empty_table()
    table = _parse(b"\n".join(good), columns)
    if table is not None and table.num_rows == len(good):
        return table
    good = [line for line in good if _parse_one(block, line, columns, bad)]
    table = _parse(b"\n".join(good), columns) if good else None
    return schema_of(columns).empty_table() if table is None else table


def good_rows(
    block: Block, columns: tuple[Column, ...], bad: BadLines
) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """(line number, line, object) of every usable line, by the standard library; others go to ``bad``."""
    for number, line in enumerate(block.data.split(b"\n"), block.first_line):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            bad.add(block.uri, number, f"not UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1})")
            continue
        except (json.JSONDecodeError, RecursionError) as error:
            bad.add(block.uri, number, f"not JSON ({error})")
            continue
        problem = _row_problem(row, columns)
        if problem:
            bad.add(block.uri, number, problem)
        else:
            yield number, line, row


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


def _parse(data: bytes, columns: tuple[Column, ...]) -> pa.Table | None:
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return None
    if not data.strip():
        return schema_of(columns).empty_table()
    try:
        table = pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(use_threads=True, block_size=PARSE_BYTES),
            parse_options=pj.ParseOptions(
                explicit_schema=schema_of(columns), unexpected_field_behavior="ignore"
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table.select([column.name for column in columns])


def _parse_one(block: Block, line: bytes, columns: tuple[Column, ...], bad: BadLines) -> bool:
    """Whether Arrow reads the line; the standard library had no objection (a key given twice, say)."""
    table = _parse(line, columns)
    if table is not None and table.num_rows == 1:
        return True
    number = block.first_line + block.data.split(b"\n").index(line)
    bad.add(block.uri, number, "not a JSON object with each key once")
    return False


def _row_problem(row: Any, columns: tuple[Column, ...]) -> str | None:
    if not isinstance(row, dict):
        return f"holds {_show(row)}, expected an object in braces"
    for column in columns:
        problem = column.problem(row)
        if problem:
            return problem
    return None


def _lines(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n"))


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else f"'{value}'"
    return text if len(text) <= 60 else text[:57] + "…"
