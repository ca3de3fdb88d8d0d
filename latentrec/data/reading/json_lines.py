"""JSON lines by Arrow's parser: only the fields that are asked for become columns."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.json as pj

from latentrec.core.text import printable
from latentrec.data.reading.line_reader import Column, schema_of


@dataclass(frozen=True)
class JsonParser:
    """One JSON object a line; a :class:`~latentrec.data.reading.line_reader.LineParser`."""

    columns: tuple[Column, ...]
    skip_lines: int = 0

    def parse(self, data: bytes) -> pa.Table | None:
        """All lines of a block, or ``None`` when any cannot be read."""
        schema = schema_of(self.columns)
        if not data.strip():
            return schema.empty_table()
        try:
            table = pj.read_json(
                pa.BufferReader(data),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None
        return table.select(schema.names)

    def row(self, line: bytes) -> Any:
        """One line by the standard library."""
        text = line.decode("utf-8")
        twice: set[str] = set()

        def one_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            nonlocal twice  # the object that is read last is the outermost
            row = dict(pairs)
            twice = (
                set()
                if len(row) == len(pairs)
                else {k for k, n in Counter(k for k, _ in pairs).items() if n > 1}
            )
            return row

        try:
            row = json.loads(text, object_pairs_hook=one_object)
        except ValueError as error:
            raise ValueError(f"not JSON ({printable(str(error))})") from None
        wanted = [column.name for column in self.columns if column.name in twice]
        if wanted:
            raise ValueError(f"'{wanted[0]}' is given twice")
        return row
