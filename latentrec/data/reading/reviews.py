"""Review files to events, streaming; and in a second pass the texts of the events that were kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from latentrec.core import UserError, progress
from latentrec.data.reading.events import EventBuilder, Events
from latentrec.data.reading.formats import ReviewFormat, recognize_reviews
from latentrec.data.reading.input_files import InputFile, find_inputs, first_block, total_bytes
from latentrec.data.reading.line_reader import BadLines, read_tables


@dataclass(frozen=True)
class Reviews:
    """What was read: events in file order, the files with their formats, and lines that were dropped."""

    events: Events
    files: list[InputFile]
    formats: list[ReviewFormat]
    bad: BadLines

    @property
    def lines(self) -> int:
        """Lines read, bad ones included."""
        return sum(file.lines for file in self.files)


def read_reviews(uris: tuple[str, ...], bad: BadLines, *, texts: bool = False) -> Reviews:
    """Read every file's events.

    Args:
        uris: files, folders and prefixes.
        bad: counts lines that cannot be read, or stops at the first.
        texts: :func:`read_texts` will follow, so a line whose text cannot be read is bad as well: both passes
            must see the same rows.

    Raises:
        UserError: a file is missing, damaged, of no known format, or a line is bad.
    """
    files = find_inputs(uris)
    formats = [recognize_reviews(first_block(file)) for file in files]
    builder = EventBuilder()
    for (user, item, rating, time), table, file_format in _tables(files, formats, bad, texts=texts):
        seconds = table[time].to_numpy()
        if file_format.time_divisor != 1:
            seconds = seconds // file_format.time_divisor
        builder.add(table[user], table[item], table[rating].to_numpy(), seconds)
    reviews = Reviews(builder.finish(), files, formats, bad)
    bad.check_share(uris[0], reviews.lines)
    if not len(reviews.events):
        raise UserError(f"{uris[0]}: no review could be read", code="reviews.empty")
    return reviews


def read_texts(reviews: Reviews, rows: np.ndarray) -> tuple[pa.Array, pa.Array]:
    """Texts and headlines of some events, in a second pass that keeps nothing else.

    Args:
        reviews: what the first pass read.
        rows: int64, indices into the events, in any order.

    Returns:
        (review_text, summary), Arrow large_string arrays in the order of ``rows``; null where absent.
    """
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    texts: list[pa.Array] = []
    summaries: list[pa.Array] = []
    start = 0
    bad = BadLines(reviews.bad.skip, 1.0)
    for _, table, file_format in _tables(reviews.files, reviews.formats, bad, texts=True):
        low, high = np.searchsorted(ascending, [start, start + table.num_rows])
        chosen = table.take(pa.array(ascending[low:high] - start))
        for parts, name in zip((texts, summaries), file_format.text or (None, None), strict=True):
            values = chosen[name].combine_chunks() if name else pa.nulls(len(chosen), pa.string())
            parts.append(values.cast(pa.large_string()))
        start += table.num_rows
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    indices = pa.array(back)
    return tuple(pc.take(_concat(parts), indices) for parts in (texts, summaries))  # type: ignore[return-value]


def _tables(
    files: list[InputFile], formats: list[ReviewFormat], bad: BadLines, *, texts: bool
) -> Iterator[tuple[tuple[str, ...], pa.Table, ReviewFormat]]:
    total = total_bytes(files)
    rows = 0
    with progress("read texts" if texts else "read reviews", total, "B") as bar:
        for file, file_format in zip(files, formats, strict=True):
            names = tuple(column.name for column in file_format.parser.columns)
            parser = file_format.with_texts() if texts else file_format.parser
            for block, table in read_tables(file, parser, bad):
                rows += table.num_rows
                bar.set_postfix_str(f"{rows:,} rows", refresh=False)
                bar.update(block.raw_bytes)
                yield names, table, file_format


def _concat(parts: list[pa.Array]) -> pa.Array:
    chunks = [part.combine_chunks() if isinstance(part, pa.ChunkedArray) else part for part in parts]
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())
