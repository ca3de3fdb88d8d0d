"""Product metadata: titles, brands, descriptions and categories of the items that have reviews.

Amazon's JSON lines (strict or Python literals) and MovieLens' item files.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from latentrec.core import UserError, progress
from latentrec.core.text import printable
from latentrec.data.reading.byte_streams import ParquetFoundError
from latentrec.data.reading.formats import first_lines, parse_object
from latentrec.data.reading.input_files import Block, InputFile, ahead, read_blocks, recognized, total_bytes
from latentrec.data.reading.line_parsers import split_line
from latentrec.data.reading.line_reader import UNFIT, BadLines, good_lines, without_surrogates
from latentrec.data.reading.parquet import open_parquet
from latentrec.data.reading.parquet_metadata import MetadataReader
from latentrec.data.titles import clean_text, clean_title, is_usable

_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True)
class ItemText:
    """What metadata says of one item, cleaned; absent parts are ``None``."""

    title: str
    brand: str | None = None
    description: str | None = None
    categories: str | None = None


class MetadataFormat(Protocol):
    """How lines of one kind of metadata are read."""

    name: str
    has_header: bool

    def key(self, line: bytes) -> tuple[str, Any]:
        """The item's key, and what :meth:`text` needs of the line.

        Raises:
            ValueError: the line cannot be read; the message says why, without the line's number.
        """
        ...

    def title(self, row: Any) -> str:
        """The item's title, cleaned; empty where there is none."""
        ...

    def text(self, row: Any) -> ItemText:
        """All that the row says of the item."""
        ...


class AmazonMetadata:
    """One object a line: strict JSON (2018, 2023) or Python literals (2014), which are never executed."""

    has_header = False

    def __init__(self, key_name: str):
        self.name = f"amazon metadata ({key_name})"
        self._key_name = key_name

    def key(self, line: bytes) -> tuple[str, Any]:
        """Parse the line."""
        text = line.decode("utf-8")
        try:
            row = json.loads(text)
        except ValueError as error:
            row = parse_object(text)
            if row is None:
                raise ValueError(f"neither JSON nor a Python literal ({printable(str(error))})") from None
        if not isinstance(row, dict) or not isinstance(row.get(self._key_name), str):
            raise ValueError(f"'{self._key_name}' is missing or no text")
        if not row[self._key_name]:
            raise ValueError(f"'{self._key_name}' is empty")
        if UNFIT.search(row[self._key_name]):
            raise ValueError(f"'{self._key_name}' is {ascii(row[self._key_name])[:60]}, no key")
        return row[self._key_name], row

    def title(self, row: Any) -> str:
        """The field ``title``."""
        return clean_title(_flat(row.get("title"), " "))

    def text(self, row: Any) -> ItemText:
        """Title, brand (2023: store), description and categories."""
        details = row.get("details")
        brand = row.get("brand") or row.get("store")
        if not brand and isinstance(details, dict):
            brand = details.get("Brand")
        categories = row.get("categories") or row.get("category") or row.get("main_category")
        return ItemText(
            title=self.title(row),
            brand=clean_title(_flat(brand, " ")) or None,
            description=clean_text(_flat(row.get("description"), " ")) or None,
            categories=clean_text(_flat(categories, " > "), 500) or None,
        )


class MovieLensMetadata:
    """``u.item`` (bars), ``movies.dat`` (double colons) or ``movies.csv``; UTF-8 or else Latin-1."""

    name = "movielens items"

    def __init__(self, delimiter: str):
        self.has_header = delimiter == ","
        self._delimiter = delimiter

    def key(self, line: bytes) -> tuple[str, Any]:
        """Split the line."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = line.decode("latin-1")
        try:
            fields = (
                text.rstrip("\r\n").split("|")
                if self._delimiter == "|"
                else split_line(text, self._delimiter)
            )
        except csv.Error as error:
            raise ValueError(f"not readable as delimited text ({error})") from None
        if UNFIT.search(fields[0] if fields else ""):
            raise ValueError(f"the item is {ascii(fields[0])[:60]}, no key")
        if len(fields) < 3 or not fields[0]:
            raise ValueError(f"{len(fields)} fields, expected at least item, title and genres")
        return fields[0], fields

    def title(self, row: Any) -> str:
        """The second field."""
        return clean_title(row[1])

    def text(self, row: Any) -> ItemText:
        """Title and genres."""
        if self._delimiter == "|":
            genres = [name for name, flag in zip(_GENRES, row[5:], strict=False) if flag.strip() == "1"]
        else:
            genres = row[2].split("|")
        return ItemText(title=self.title(row), categories=" > ".join(genres) or None)


def recognize_metadata(block: Block) -> MetadataFormat:
    """The format of a metadata file from its first lines.

    Raises:
        UserError: none that is known.
    """
    lines = first_lines(block)
    for line in lines:
        row = parse_object(line)
        if row and ({"reviewerID", "reviewText"} & set(row) or {"user_id", "rating"} <= set(row)):
            raise UserError(
                f"{block.uri} holds reviews and not product metadata; give it as --reviews (REVIEWS), and as "
                "--metadata (META) the file of the products",
                code="metadata.is_reviews",
            )
        for name in ("parent_asin", "asin"):
            if row and name in row:
                return AmazonMetadata(name)
    for delimiter, least in (("|", 20), ("::", 3)):
        rows = [line.split(delimiter) for line in lines]
        if sum(len(row) >= least for row in rows) * 2 > len(rows):  # a line may be damaged
            _refuse_other_movielens(block.uri, [row for row in rows if len(row) >= least])
            return MovieLensMetadata(delimiter)
    if lines[0].lower().replace(" ", "").startswith("movieid,title"):
        return MovieLensMetadata(",")
    raise UserError(
        f"{block.uri}: no metadata format that is known (Amazon JSON lines with 'asin' or 'parent_asin', "
        f"MovieLens items); the first line begins {lines[0][:60]!a}",
        code="metadata.unknown_format",
    )


def _refuse_other_movielens(uri: str, rows: list[list[str]]) -> None:
    """Ratings and users of MovieLens have the same delimiters as its items: a second field without a letter,
    or of one letter, is no title.
    """
    titles = sum(sum(sign.isalpha() for sign in row[1]) > 1 for row in rows)
    if titles * 2 <= len(rows):
        raise UserError(
            f"{uri}: its second fields ({', '.join(ascii(row[1])[:30] for row in rows[:3])}) are no titles; "
            "as --metadata (META) give MovieLens' items (u.item, movies.dat or movies.csv), and its ratings "
            "as --reviews (REVIEWS)",
            code="metadata.unknown_format",
        )


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
    files: list[InputFile],
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
        files: what to read, in this order.
        item_keys: keys of the items that were reviewed; the place is the code.
        bad: counts lines that cannot be read, or stops at the first.
        wanted: bool (items,); texts of other items are not kept, so memory holds what can be in the result.
        title_filter: see :func:`latentrec.data.titles.is_usable`.
        max_title_words: likewise.

    Raises:
        UserError: a file is damaged or of no known format, a line is bad, or no row belongs to an item that
            was reviewed.
    """
    codes = {key: code for code, key in enumerate(item_keys.to_pylist())}
    texts: list[ItemText | None] = [None] * len(codes)
    usable = [False] * len(codes)
    formats = []
    rows = matched = 0
    with progress("read metadata", total_bytes(files), "B") as bar:
        for file in files:
            with _opened(file, bad) as opened:
                formats.append(opened.name)
                for found, lines, raw_bytes in opened.batches:
                    for key, row in found:
                        rows += 1
                        code = codes.get(key)
                        if code is None:
                            continue
                        matched += 1
                        if not wanted[code]:
                            title = opened.format.title(row)
                            usable[code] = usable[code] or is_usable(title, title_filter, max_title_words)
                            continue
                        text = opened.format.text(row)
                        is_good = is_usable(text.title, title_filter, max_title_words)
                        if _is_better(text, is_good, texts[code], usable[code]):
                            texts[code], usable[code] = text, is_good
                    file.lines += lines
                    bar.set_postfix_str(f"{rows:,} rows", refresh=False)
                    bar.update(raw_bytes)
    bad.check_share(files[0].uri, sum(file.lines for file in files))
    if not matched:
        raise UserError(
            f"{files[0].uri}: none of its {rows:,} items occurs in the reviews (which name {item_keys[0]} "
            f"and {len(item_keys) - 1:,} others); is it the metadata of another category?",
            code="metadata.no_common_item",
        )
    return Metadata(texts, usable, files, formats, rows, bad)


@dataclass(frozen=True)
class _Opened:
    """A metadata file that is being read.

    Attributes:
        name: of its format.
        format: reads titles and texts of the rows.
        batches: (rows with their keys, lines read for them, bytes of the file read for them).
    """

    name: str
    format: MetadataFormat
    batches: Iterator[tuple[Iterable[tuple[str, Any]], int, int]]


@contextmanager
def _opened(file: InputFile, bad: BadLines) -> Iterator[_Opened]:
    """A file of lines, or a table.

    Raises:
        UserError: it is damaged or of no known format.
    """
    with ExitStack() as stack:
        try:
            found, blocks = recognized(ahead(read_blocks(file)), file.uri, recognize_metadata)
        except ParquetFoundError:
            reader = MetadataReader.of(stack.enter_context(open_parquet(file, whole=True)))
            opened = _Opened(reader.name, AmazonMetadata(reader.key), reader.batches(bad))
        else:
            read = ((good_lines(block, found.key, bad), block.lines, block.raw_bytes) for block in blocks)
            opened = _Opened(found.name, found, read)
        yield opened


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


def _flat(value: Any, separator: str, depth: int = 0) -> str:
    """A field as one string: lists (of lists) are joined, anything else but text is dropped."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list) and depth < 8:
        return separator.join(
            part for part in (_flat(entry, separator, depth + 1) for entry in value) if part
        )
    return ""
