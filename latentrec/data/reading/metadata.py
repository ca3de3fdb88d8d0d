"""Product metadata: titles, brands, descriptions and categories of the items that have reviews."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from latentrec.core import UserError, progress
from latentrec.data.reading.input_files import InputFile, find_inputs, first_block, read_blocks, total_bytes
from latentrec.data.reading.line_reader import BadLines
from latentrec.data.reading.metadata_formats import ItemText, metadata_rows, recognize_metadata
from latentrec.data.titles import is_usable


@dataclass(frozen=True)
class Metadata:
    """Metadata of the items that occur in the reviews.

    Attributes:
        texts: by item code; ``None`` where there is no row or the item is not wanted.
        usable: the title passes the filter, by item code.
        files: what was read.
        formats: name of each file's format.
        rows: metadata rows in the files.
        bad: lines that were dropped.
    """

    texts: list[ItemText | None]
    usable: list[bool]
    files: list[InputFile]
    formats: list[str]
    rows: int
    bad: BadLines


def read_metadata(
    uris: tuple[str, ...],
    item_keys: pa.Array,
    bad: BadLines,
    *,
    wanted: np.ndarray,
    title_filter: str,
    max_title_words: int | None,
) -> Metadata:
    """Read the rows of the items that have reviews.

    Where an item has several rows, one with a usable title wins, then the smallest title: the order of the
    rows does not matter.

    Args:
        uris: files or folders.
        item_keys: keys of the items that were reviewed; the place is the code.
        bad: counts lines that cannot be read, or stops at the first.
        wanted: bool (items,); texts of other items are not kept, so memory holds what can be in the result.
        title_filter: see :func:`latentrec.data.titles.is_usable`.
        max_title_words: likewise.

    Raises:
        UserError: a file is missing, damaged or of no known format, a line is bad, or no row belongs to an
            item that was reviewed.
    """
    files = find_inputs(uris)
    codes = {key: code for code, key in enumerate(item_keys.to_pylist())}
    texts: list[ItemText | None] = [None] * len(codes)
    usable = [False] * len(codes)
    formats = []
    rows = matched = 0
    with progress("read metadata", total_bytes(files), "B") as bar:
        for file in files:
            file_format, header = recognize_metadata(first_block(file))
            formats.append(file_format.name)
            for block in read_blocks(file):
                for key, row in metadata_rows(block, file.lines + 1, header, file_format, bad):
                    rows += 1
                    code = codes.get(key)
                    if code is None:
                        continue
                    matched += 1
                    if not wanted[code]:
                        usable[code] = usable[code] or is_usable(
                            file_format.title(row), title_filter, max_title_words
                        )
                        continue
                    text = file_format.text(row)
                    is_good = is_usable(text.title, title_filter, max_title_words)
                    if _is_better(text, is_good, texts[code], usable[code]):
                        texts[code], usable[code] = text, is_good
                file.lines += block.count_lines()
                bar.set_postfix_str(f"{rows:,} rows", refresh=False)
                bar.update(block.raw_bytes)
    bad.check_share(uris[0], sum(file.lines for file in files))
    if not matched:
        raise UserError(
            f"{uris[0]}: none of its {rows:,} items occurs in the reviews (which name {item_keys[0]} and "
            f"{len(item_keys) - 1:,} others); is it the metadata of another category?",
            code="metadata.no_common_item",
        )
    return Metadata(texts, usable, files, formats, rows, bad)


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


def _is_better(text: ItemText, is_good: bool, old: ItemText | None, old_is_good: bool) -> bool:
    if old is None:
        return True
    return (not is_good, _order(text)) < (not old_is_good, _order(old))


def _order(text: ItemText) -> tuple[str, ...]:
    return (text.title, text.brand or "", text.description or "", text.categories or "")
