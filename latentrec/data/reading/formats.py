"""Formats of review files, recognized from their first lines and never from their names."""

from __future__ import annotations

import ast
import csv
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from latentrec.core import UserError
from latentrec.core.text import printable
from latentrec.data.reading.input_files import Block
from latentrec.data.reading.line_parsers import DelimitedParser, JsonParser, split_line
from latentrec.data.reading.line_reader import Column, LineParser

LATEST_S = 4_102_444_800
"""2100-01-01: a later time in seconds is a time in another unit."""
LEAST_MS = 100_000_000_000
"""March 1973 in milliseconds, and the year 5138 in seconds: what is larger counts milliseconds."""
_MOST = 0.8
_LONGEST_LITERAL = 1 << 20
_ASIN = re.compile(r"B[0-9A-Z]{9}|[0-9]{9}[0-9X]")
_DELIMITED = (
    ("\t", "movielens"),
    ("::", "movielens"),
    (",", "ratings_csv"),
    (";", "ratings_csv"),
    (" ", "movielens"),
)
HEADERS = {
    "user": ("user", "user_id", "userid", "reviewerid"),
    "item": ("item", "item_id", "itemid", "movieid", "parent_asin", "asin"),
    "rating": ("rating", "overall", "stars"),
    "timestamp": ("timestamp", "time", "unixreviewtime"),
}
"""Names that a header, or a table's schema, may have for each column, in lower case."""


@dataclass(frozen=True)
class ReviewFormat:
    """Where a review file keeps what is needed.

    Attributes:
        name: for manifests and reports.
        parser: reads user, item, rating and time, in this order of columns.
        has_header: the first line holds no row.
        time_divisor: 1 for seconds, 1000 for milliseconds.
        text: names of the review's text and headline, or empty where the format has none.
    """

    name: str
    parser: LineParser
    has_header: bool = False
    time_divisor: int = 1
    text: tuple[str, ...] = ()

    def with_texts(self) -> LineParser:
        """A parser that also reads the columns of ``text``."""
        if not self.text:
            return self.parser
        columns = tuple(Column(name, pa.string(), required=False) for name in self.text)
        return JsonParser(self.parser.columns + columns)


def review_columns(
    user: str, item: str, rating: str, time: str, *, divisor: int = 1, low: float = 1
) -> tuple[Column, ...]:
    """What is required of a review's four fields.

    Args:
        user, item, rating, time: their names in the file.
        divisor: 1 for times in seconds, 1000 for milliseconds.
        low: the least rating.
    """
    unit, earliest = ("UTC seconds", 0) if divisor == 1 else ("UTC milliseconds", LEAST_MS)
    years = 1970 + earliest // (31_557_600 * divisor)
    return (
        Column(user, pa.string()),
        Column(item, pa.string()),
        Column(rating, pa.float64(), low=low, high=5, allowed=f"from {low:g} to 5"),
        Column(
            time, pa.int64(), low=earliest, high=LATEST_S * divisor, allowed=f"({unit} from {years} to 2100)"
        ),
    )


CLASSIC = ("reviewerID", "asin", "overall", "unixReviewTime")
"""Amazon's fields of 2014 and 2018."""
NEW = ("user_id", "parent_asin", "rating", "timestamp")
"""Amazon's fields of 2023."""


def _amazon(name: str, divisor: int) -> ReviewFormat:
    """Amazon's JSON lines of one edition; its times may be in another unit than that edition's own."""
    fields, text = (NEW, ("text", "title")) if name == "amazon2023" else (CLASSIC, ("reviewText", "summary"))
    return ReviewFormat(
        name, JsonParser(review_columns(*fields, divisor=divisor)), time_divisor=divisor, text=text
    )


def recognize_reviews(block: Block) -> ReviewFormat:
    """The format of a review file, from its first lines.

    Raises:
        UserError: none that is known; the message says what was found.
    """
    lines = first_lines(block)
    objects = [row for row in map(parse_object, lines) if row is not None]
    if objects:
        return _recognize_objects(block, objects)
    if lines[0].strip() == "{":
        raise UserError(
            f"{block.uri}: its objects run over several lines; write one a line (jq -c . FILE)",
            code="reviews.object_over_lines",
        )
    for delimiter, name in _DELIMITED:
        found = _recognize_delimited(block, lines, delimiter, name)
        if found is not None:
            return found
    raise UserError(
        f"{block.uri}: the first lines are no review format that is known (Amazon 2014, 2018 and 2023 JSON "
        f"lines, user,item,rating,timestamp CSV, MovieLens); the first begins {lines[0][:60]!a}",
        code="reviews.unknown_format",
    )


def first_lines(block: Block, n: int = 200) -> list[str]:
    """The first whole lines that are not blank; what is not UTF-8 is replaced.

    Blank is what :func:`first_block` takes for blank, white space of ASCII: text has more of it (U+001F), and
    a block of which one says that it holds a line and the other that it holds none would have no first line.
    """
    whole = block.data if block.data.endswith(b"\n") else block.data + b"\n"
    lines = [line for line in whole.split(b"\n", n)[:n] if line.strip()]
    if not lines:  # n blank lines before the first
        lines = [whole.lstrip().split(b"\n", 1)[0]]
    return [line.decode("utf-8", "replace").strip("\r\n") for line in lines]


def parse_object(text: str) -> dict[str, Any] | None:
    """A dictionary written as JSON or as a Python literal (2014 metadata); never executed."""
    if not text.lstrip().startswith("{"):
        return None
    parsers = (json.loads, ast.literal_eval) if len(text) <= _LONGEST_LITERAL else (json.loads,)
    for parse in parsers:
        try:
            with warnings.catch_warnings():  # about odd literals, on standard error
                warnings.simplefilter("ignore", SyntaxWarning)
                row = parse(text.strip())
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # a list as a key
            continue
        return row if isinstance(row, dict) else None
    return None


def _recognize_objects(block: Block, objects: list[dict[str, Any]]) -> ReviewFormat:
    """By the fields that most of the first lines have: one line may be damaged."""
    keys = {key for row in objects for key in row}
    name, fields = max(
        (("amazon2018", CLASSIC), ("amazon2023", NEW)),
        key=lambda known: sum(field in keys for field in known[1]),
    )
    absent = [field for field in fields if field not in keys]
    if len(absent) > 1:
        hint = ""
        if {"asin", "parent_asin"} & keys and "title" in keys:
            hint = "; it looks like product metadata: give it as --metadata (META)"
        shown = ", ".join(printable(key)[:30] for key in sorted(keys)[:8])
        raise UserError(
            f"{block.uri}: the fields {shown} are those of no review format that is known (Amazon 2014 and "
            f"2018 have {', '.join(CLASSIC)}; 2023 has {', '.join(NEW)}){hint}",
            code="reviews.unknown_format",
        )
    if absent:
        raise UserError(
            f"{block.uri}, line 1: '{absent[0]}' is missing, and in every line of the first",
            code="reviews.missing_field",
        )
    if name == "amazon2018" and "helpful" in keys:
        name = "amazon2014"
    times = [row[fields[3]] for row in objects if isinstance(row.get(fields[3]), int | float)]
    return _amazon(name, time_divisor(times, 1000 if name == "amazon2023" else 1))


def time_divisor(times: Sequence[int | float], usual: int) -> int:
    """1 where the median of some times is in seconds, 1000 where it is in milliseconds."""
    sound = sorted(time for time in times if 0 < time < LATEST_S * 1000)
    if not sound:
        return usual
    return 1000 if sound[len(sound) // 2] >= LEAST_MS else 1


def _recognize_delimited(block: Block, lines: list[str], delimiter: str, name: str) -> ReviewFormat | None:
    rows = [_fields(line, delimiter) for line in lines]
    width = len(rows[0])
    if width < 4 or sum(len(row) == width for row in rows) * 2 < len(rows):
        return None
    names = _names_from_header(rows[0])
    if names is not None:
        absent = [column for column in HEADERS if column not in names]
        if absent:
            raise UserError(
                f"{block.uri}, line 1: no column for '{absent[0]}' (known: {', '.join(HEADERS[absent[0]])})",
                code="reviews.missing_field",
            )
        body = rows[1:]
    else:
        if width != 4:
            return None
        body = rows
        names = _order_without_header(block, body)
    place = names.index("timestamp")
    texts = [row[place].strip() for row in body if len(row) == width]
    divisor = time_divisor([int(text) for text in texts if text.isdecimal() and len(text) < 20], 1)
    columns = review_columns("user", "item", "rating", "timestamp", divisor=divisor, low=0.5)
    parser = DelimitedParser(columns, names, delimiter)
    return ReviewFormat(name, parser, has_header=body is not rows, time_divisor=divisor)


def _names_from_header(row: list[str]) -> tuple[str, ...] | None:
    """Our names for the columns of a header; unknown columns keep a name of their own."""
    lowered = [field.strip().lower() for field in row]
    known = {alias: name for name, aliases in HEADERS.items() for alias in aliases}
    if sum(field in known for field in lowered) < 2:
        return None
    names: list[str] = []
    for place, field in enumerate(lowered):
        name = known.get(field, "")
        names.append(name if name and name not in names else f"column {place + 1}")
    return tuple(names)


def _order_without_header(block: Block, rows: list[list[str]]) -> tuple[str, ...]:
    """Which of the first two fields is the user: the 2018 ratings-only files begin with the item.

    Raises:
        UserError: the first lines fit both orders.
    """
    first, second = _asin_share(rows, 0), _asin_share(rows, 1)
    if first >= _MOST and second <= 1 - _MOST:
        return ("item", "user", "rating", "timestamp")
    if first <= 1 - _MOST or second >= _MOST:
        return ("user", "item", "rating", "timestamp")
    raise UserError(
        f"{block.uri}: of the first lines, {first:.0%} begin with something like an item's key (ASIN); which "
        "field is the user's is not clear; put a header above: user_id,parent_asin,rating,timestamp in the "
        "file's order",
        code="reviews.unknown_format",
    )


def _asin_share(rows: list[list[str]], place: int) -> float:
    found = [row[place] for row in rows if len(row) > place]
    return sum(_ASIN.fullmatch(text) is not None for text in found) / len(found) if found else 0.0


def _fields(line: str, delimiter: str) -> list[str]:
    """Fields of one of the first lines; a single empty field where it cannot be split.

    Reading the file raises for such a line; here it only must not look like a header.
    """
    try:
        return split_line(line, delimiter) or [""]
    except csv.Error:
        return [""]
