"""Product metadata: titles, brands, descriptions and categories of the items that have reviews."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from latentrec.core import UserError, progress
from latentrec.data.formats import parse_object
from latentrec.data.jsonlines import BadLines
from latentrec.data.sources import Block, InputFile, find_inputs, first_block, read_blocks
from latentrec.data.titles import clean_text, clean_title, is_usable


@dataclass(frozen=True)
class ItemText:
    """What metadata says of one item, cleaned; absent parts are ``None``."""

    title: str
    brand: str | None
    description: str | None
    categories: str | None


@dataclass(frozen=True)
class Metadata:
    """Metadata of the items that occur in the reviews.

    Attributes:
        texts: by item code; ``None`` where there is no row.
        usable: the title passes the filter, by item code.
        files: what was read.
        rows: metadata rows in the files.
    """

    texts: list[ItemText | None]
    usable: list[bool]
    files: list[InputFile]
    rows: int


def read_metadata(
    uris: tuple[str, ...],
    item_keys: pa.Array,
    bad: BadLines,
    *,
    title_filter: str,
    max_title_words: int | None,
) -> Metadata:
    """Read the rows of the items that have reviews.

    Where an item has several rows, one with a usable title wins, then the smallest title: the order of the
    rows does not matter.

    Raises:
        UserError: a file is missing, damaged or of no known format, a line is bad, or no row belongs to an
            item that was reviewed.
    """
    files = find_inputs(uris)
    codes = {key: code for code, key in enumerate(item_keys.to_pylist())}
    texts: list[ItemText | None] = [None] * len(codes)
    usable = [False] * len(codes)
    rows = matched = 0
    with progress("read metadata", sum(file.bytes for file in files), "B") as bar:
        for file in files:
            key_name = _key_name(first_block(file))
            for block in read_blocks(file):
                for row in _rows(block, key_name, bad):
                    rows += 1
                    code = codes.get(row.get(key_name) or "")
                    if code is None:
                        continue
                    matched += 1
                    text = _item_text(row)
                    is_good = is_usable(text.title, title_filter, max_title_words)
                    old = texts[code]
                    if old is None or (is_good, old.title) > (usable[code], text.title):
                        texts[code], usable[code] = text, is_good
                bar.update(block.raw_bytes)
    bad.check_share(uris[0], sum(file.lines for file in files))
    if not matched:
        raise UserError(
            f"{uris[0]}: none of its {rows:,} items occurs in the reviews (which name {item_keys[0]} and "
            f"{len(item_keys) - 1:,} others); is it the metadata of another category?"
        )
    return Metadata(texts, usable, files, rows)


def _key_name(block: Block) -> str:
    for line in block.data.split(b"\n")[:20]:
        row = parse_object(line.decode("utf-8", "replace").strip())
        for name in ("parent_asin", "asin"):
            if row and name in row:
                return name
    raise UserError(
        f"{block.uri}: no metadata format that is known: no line among the first has 'asin' or 'parent_asin'"
    )


def _rows(block: Block, key_name: str, bad: BadLines) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(block.data.split(b"\n"), block.first_line):
        if not line.strip():
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            bad.add(block.uri, number, f"not UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1})")
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            row = parse_object(text)
            if row is None:
                bad.add(block.uri, number, f"neither JSON nor a Python literal ({error})")
                continue
        if not isinstance(row, dict) or not isinstance(row.get(key_name), str) or not row[key_name]:
            bad.add(block.uri, number, f"'{key_name}' is missing or no text")
            continue
        yield row


def _item_text(row: dict[str, Any]) -> ItemText:
    categories = row.get("categories") or row.get("category") or row.get("main_category")
    return ItemText(
        title=clean_title(_flat(row.get("title"), " ")),
        brand=clean_title(_flat(row.get("brand") or row.get("store"), " ")) or None,
        description=clean_text(_flat(row.get("description"), " ")) or None,
        categories=clean_text(_flat(categories, " > "), 500) or None,
    )


def _flat(value: Any, separator: str) -> str:
    """A field as one string: lists (of lists) are joined, anything else but text is dropped."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return separator.join(part for part in (_flat(entry, separator) for entry in value) if part)
    return ""


def titles_of(metadata: Metadata | None, item_keys: pa.Array, codes: np.ndarray) -> list[str]:
    """Titles of items; the key where there is none.

    Args:
        metadata: ``None`` when none was given.
        item_keys: keys of the items asked for.
        codes: their codes, int32, in the same order.
    """
    keys = item_keys.to_pylist()
    if metadata is None:
        return keys
    texts = [metadata.texts[code] for code in codes]
    return [text.title if text and text.title else key for text, key in zip(texts, keys, strict=True)]
