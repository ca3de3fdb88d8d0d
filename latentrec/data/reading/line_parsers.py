"""Parsers of lines, JSON objects and delimited text: blocks by Arrow, one line by the standard library."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.json as pj

from latentrec.core.text import printable
from latentrec.data.reading.line_reader import Column, schema_of

_SPACES = re.compile(rb"[ \t]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class JsonParser:
    """One JSON object a line; a :class:`~latentrec.data.reading.line_reader.LineParser`."""

    columns: tuple[Column, ...]

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
            names = Counter(name for name, _ in pairs) if len(row) < len(pairs) else Counter()
            twice = {name for name, n in names.items() if n > 1}
            return row

        try:
            row = json.loads(text, object_pairs_hook=one_object)
        except ValueError as error:
            raise ValueError(f"not JSON ({printable(str(error))})") from None
        wanted = [column.name for column in self.columns if column.name in twice]
        if wanted:
            raise ValueError(f"'{wanted[0]}' is given twice")
        return row


@dataclass(frozen=True)
class DelimitedParser:
    """Fields between delimiters; a :class:`~latentrec.data.reading.line_reader.LineParser`.

    Attributes:
        columns: what is read; names occur in ``names``.
        names: of every field of a line, in the order of the file.
        delimiter: one character, ``::`` as in MovieLens' ``.dat`` files, or a space for any white space.
    """

    columns: tuple[Column, ...]
    names: tuple[str, ...]
    delimiter: str

    def parse(self, data: bytes) -> pa.Table | None:
        """All lines of a block, or ``None`` when any cannot be read."""
        schema = schema_of(self.columns)
        if not data.strip():
            return schema.empty_table()
        delimiter = self.delimiter
        if delimiter == "::":
            if b"\t" in data:  # it would become a delimiter
                return None
            data, delimiter = data.replace(b"::", b"\t"), "\t"
        elif delimiter == " ":
            data, delimiter = _SPACES.sub(b"\t", data), "\t"
        try:
            return pv.read_csv(
                pa.BufferReader(data),
                read_options=pv.ReadOptions(
                    use_threads=False, block_size=len(data) + 1, column_names=list(self.names)
                ),
                parse_options=pv.ParseOptions(delimiter=delimiter),
                convert_options=pv.ConvertOptions(
                    column_types=dict(zip(schema.names, schema.types, strict=True)),
                    include_columns=schema.names,
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None

    def row(self, line: bytes) -> Any:
        """One line by the standard library; numbers of the right kind where they can be read so."""
        text = line.decode("utf-8")
        if self.delimiter not in ("::", " ") and text.count('"') % 2:
            raise ValueError(
                "a quote is opened and not closed on this line (a line break inside a field is not read)"
            )
        try:
            fields = split_line(text, self.delimiter)
        except csv.Error as error:
            raise ValueError(f"not readable as delimited text ({error})") from None
        if len(fields) != len(self.names):
            raise ValueError(f"{len(fields)} fields, expected {len(self.names)}: {', '.join(self.names)}")
        texts = dict(zip(self.names, fields, strict=True))
        return {
            column.name: _value(texts[column.name], column) for column in self.columns if texts[column.name]
        }


def split_line(text: str, delimiter: str) -> list[str]:
    """Fields of one line, quotes removed."""
    text = text.rstrip("\r\n")
    if delimiter == "::":
        return text.split("::")
    if delimiter == " ":
        return text.split()
    return next(csv.reader([text], delimiter=delimiter), [])


def _value(text: str, column: Column) -> Any:
    if pa.types.is_string(column.kind):
        return text
    text = text.strip()
    if not _NUMBER.fullmatch(text) or len(text) > 400:
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.get(text.lower(), text)
    return int(text) if text.lstrip("+-").isdecimal() else float(text)
