"""What review and metadata files look like, recognised from their first lines and never from their names."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from latentrec.core import UserError
from latentrec.data.jsonlines import Column
from latentrec.data.sources import Block

LATEST_S = 4_102_444_800
"""2100-01-01: a later time in seconds is a time in another unit."""


@dataclass(frozen=True)
class ReviewFormat:
    """Where a review file keeps what is needed.

    Attributes:
        name: for manifests and reports.
        columns: user, item, rating and time, in this order.
        time_divisor: 1 for seconds, 1000 for milliseconds.
        text: names of the review's text and headline, or empty where the format has none.
    """

    name: str
    columns: tuple[Column, ...]
    time_divisor: int
    text: tuple[str, ...]


def _review_columns(user: str, item: str, rating: str, time: str, divisor: int) -> tuple[Column, ...]:
    unit = "UTC seconds" if divisor == 1 else "UTC milliseconds"
    return (
        Column(user, pa.string()),
        Column(item, pa.string()),
        Column(rating, pa.float64(), low=1, high=5, allowed="from 1 to 5"),
        Column(time, pa.int64(), low=0, high=LATEST_S * divisor, allowed=f"({unit} from 1970 to 2100)"),
    )


AMAZON_2018 = ReviewFormat(
    "amazon2018",
    _review_columns("reviewerID", "asin", "overall", "unixReviewTime", 1),
    1,
    ("reviewText", "summary"),
)
AMAZON_2014 = ReviewFormat("amazon2014", AMAZON_2018.columns, 1, AMAZON_2018.text)
AMAZON_2023 = ReviewFormat(
    "amazon2023",
    _review_columns("user_id", "parent_asin", "rating", "timestamp", 1000),
    1000,
    ("text", "title"),
)


def recognise_reviews(block: Block) -> ReviewFormat:
    """The format of a review file, from its first lines.

    Raises:
        UserError: none that is known; the message says what was found.
    """
    for row in _first_objects(block):
        keys = set(row)
        if {"reviewerID", "asin"} <= keys:
            return AMAZON_2014 if "helpful" in keys else AMAZON_2018
        if {"user_id", "parent_asin"} <= keys:
            return AMAZON_2023
        for known in (AMAZON_2018, AMAZON_2023):
            names = [column.name for column in known.columns]
            if sum(name in keys for name in names) >= 2:
                absent = next(name for name in names if name not in keys)
                raise UserError(f"{block.uri}, line {block.first_line}: '{absent}' is missing ({known.name})")
        raise UserError(
            f"{block.uri}: fields {', '.join(sorted(keys)[:8])} are those of no review format that is known "
            "(Amazon 2014, 2018, 2023)"
        )
    raise UserError(f"{block.uri}: the first lines are no review format that is known; {_head(block)}")


def _first_objects(block: Block) -> list[dict[str, Any]]:
    """Objects among the first lines, strict JSON or Python literals."""
    found = []
    for line in block.data.split(b"\n")[:20]:
        text = line.decode("utf-8", "replace").strip()
        if text.startswith("{"):
            row = parse_object(text)
            if row is not None:
                found.append(row)
    return found


def parse_object(text: str) -> dict[str, Any] | None:
    """A dictionary written as JSON or as a Python literal (2014 metadata); never executed."""
    for parse in (json.loads, ast.literal_eval):
        try:
            row = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return row if isinstance(row, dict) else None
    return None


def _head(block: Block) -> str:
    line = next((line for line in block.data.split(b"\n") if line.strip()), b"")
    return f"the first begins {line[:60]!r}"
