"""What review files look like, recognised from their first lines and never from their names."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from latentrec.core import UserError
from latentrec.data.reading.delimited import DelimitedParser, split_line
from latentrec.data.reading.input_files import Block
from latentrec.data.reading.json_lines import JsonParser
from latentrec.data.reading.line_reader import Column, LineParser

LATEST_S = 4_102_444_800
"""2100-01-01: a later time in seconds is a time in another unit."""
_LEAST_MS = 100_000_000_000
_ASIN = re.compile(r"B[0-9A-Z]{9}|[0-9]{9}[0-9X]")
_HEADERS = {
    "user": ("user", "user_id", "userid", "reviewerid"),
    "item": ("item", "item_id", "itemid", "movieid", "parent_asin", "asin"),
    "rating": ("rating", "overall", "stars"),
    "timestamp": ("timestamp", "time", "unixreviewtime"),
}


@dataclass(frozen=True)
class ReviewFormat:
    """Where a review file keeps what is needed.

    Attributes:
        name: for manifests and reports.
        parser: reads user, item, rating and time, in this order of columns.
        time_divisor: 1 for seconds, 1000 for milliseconds.
        text: names of the review's text and headline, or empty where the format has none.
    """

    name: str
    parser: LineParser
    time_divisor: int = 1
    text: tuple[str, ...] = ()

    def with_texts(self) -> LineParser:
        """A parser that also reads the columns of ``text``."""
        if not self.text:
            return self.parser
        columns = tuple(Column(name, pa.string(), required=False) for name in self.text)
        return JsonParser(self.parser.columns + columns)


def _columns(
    user: str, item: str, rating: str, time: str, *, divisor: int = 1, low: float = 1
) -> tuple[Column, ...]:
    unit = "UTC seconds" if divisor == 1 else "UTC milliseconds"
    return (
        Column(user, pa.string()),
        Column(item, pa.string()),
        Column(rating, pa.float64(), low=low, high=5, allowed=f"from {low:g} to 5"),
        Column(time, pa.int64(), low=0, high=LATEST_S * divisor, allowed=f"({unit} from 1970 to 2100)"),
    )


_CLASSIC = JsonParser(_columns("reviewerID", "asin", "overall", "unixReviewTime"))
AMAZON_2014 = ReviewFormat("amazon2014", _CLASSIC, text=("reviewText", "summary"))
AMAZON_2018 = ReviewFormat("amazon2018", _CLASSIC, text=("reviewText", "summary"))
AMAZON_2023 = ReviewFormat(
    "amazon2023",
    JsonParser(_columns("user_id", "parent_asin", "rating", "timestamp", divisor=1000)),
    1000,
    ("text", "title"),
)


def recognise_reviews(block: Block) -> ReviewFormat:
    """The format of a review file, from its first lines.

    Raises:
        UserError: none that is known; the message says what was found.
    """
    lines = first_lines(block)
    objects = [row for row in map(parse_object, lines) if row is not None]
    if objects:
        return _recognise_objects(block, objects)
    for delimiter, name in (("\t", "movielens"), ("::", "movielens"), (",", "ratings_csv")):
        found = _recognise_delimited(block, lines, delimiter, name)
        if found is not None:
            return found
    raise UserError(
        f"{block.uri}: the first lines are no review format that is known (Amazon 2014, 2018 and 2023 JSON "
        f"lines, user,item,rating,timestamp CSV, MovieLens); the first begins {lines[0][:60]!r}"
    )


def first_lines(block: Block, n: int = 200) -> list[str]:
    """The first whole lines that are not blank; what is not UTF-8 is replaced."""
    whole = block.data if block.data.endswith(b"\n") else block.data + b"\n"
    lines = (line.decode("utf-8", "replace").strip("\r\n") for line in whole.split(b"\n", n)[:n])
    return [line for line in lines if line.strip()]


def parse_object(text: str) -> dict[str, Any] | None:
    """A dictionary written as JSON or as a Python literal (2014 metadata); never executed."""
    if not text.lstrip().startswith("{"):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            row = parse(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return row if isinstance(row, dict) else None
    return None


def _recognise_objects(block: Block, objects: list[dict[str, Any]]) -> ReviewFormat:
    """By the fields that most of the first lines have: one line may be damaged."""
    keys = {key for row in objects for key in row}
    found = max(
        (AMAZON_2018, AMAZON_2023),
        key=lambda known: sum(column.name in keys for column in known.parser.columns),
    )
    names = [column.name for column in found.parser.columns]
    absent = [name for name in names if name not in keys]
    if len(absent) > 1:
        raise UserError(
            f"{block.uri}: the fields {', '.join(sorted(keys)[:8])} are those of no review format that is "
            f"known (Amazon 2014 and 2018 have {', '.join(c.name for c in AMAZON_2018.parser.columns)}; "
            f"2023 has {', '.join(c.name for c in AMAZON_2023.parser.columns)})"
        )
    if absent:
        raise UserError(f"{block.uri}, line 1: '{absent[0]}' is missing, and in every line of the first")
    return AMAZON_2014 if found is AMAZON_2018 and "helpful" in keys else found


def _recognise_delimited(block: Block, lines: list[str], delimiter: str, name: str) -> ReviewFormat | None:
    rows = [split_line(line, delimiter) for line in lines]
    width = len(rows[0])
    if width < 4 or sum(len(row) == width for row in rows) * 2 < len(rows):
        return None
    names = _names_from_header(rows[0])
    if names is not None:
        absent = [column for column in _HEADERS if column not in names]
        if absent:
            raise UserError(
                f"{block.uri}, line 1: no column for '{absent[0]}' (known: {', '.join(_HEADERS[absent[0]])})"
            )
        body = rows[1:]
    else:
        if width != 4:
            return None
        body = rows
        names = ("user", "item", "rating", "timestamp")
        if _are_asins(body, 0) and not _are_asins(body, 1):
            names = ("item", "user", "rating", "timestamp")  # the order of the 2018 ratings-only files
    place = names.index("timestamp")
    times = [int(row[place]) for row in body if len(row) == width and row[place].isdigit()]
    divisor = 1000 if times and sorted(times)[len(times) // 2] >= _LEAST_MS else 1
    columns = _columns("user", "item", "rating", "timestamp", divisor=divisor, low=0.5)
    parser = DelimitedParser(columns, names, delimiter, skip_lines=int(body is not rows))
    return ReviewFormat(name, parser, divisor)


def _names_from_header(row: list[str]) -> tuple[str, ...] | None:
    """Our names for the columns of a header; unknown columns keep a name of their own."""
    lowered = [field.strip().lower() for field in row]
    known = {alias: name for name, aliases in _HEADERS.items() for alias in aliases}
    if sum(field in known for field in lowered) < 2:
        return None
    names: list[str] = []
    for place, field in enumerate(lowered):
        name = known.get(field, "")
        names.append(name if name and name not in names else f"column {place + 1}")
    return tuple(names)


def _are_asins(rows: list[list[str]], place: int) -> bool:
    return all(len(row) > place and _ASIN.fullmatch(row[place]) for row in rows)
