"""Review files to columns: ids become codes while files stream by, and texts are put aside."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from latentrec.core import UserError, progress
from latentrec.data.reading.byte_streams import ParquetFoundError
from latentrec.data.reading.formats import ReviewFormat, recognize_reviews
from latentrec.data.reading.input_files import Block, InputFile, ahead, read_blocks, recognized, total_bytes
from latentrec.data.reading.line_reader import BadLines, read_tables
from latentrec.data.reading.parquet import open_parquet
from latentrec.data.reading.parquet_reviews import ReviewReader

_TEXTS = pa.schema([("review_text", pa.string()), ("summary", pa.string())])


@dataclass(frozen=True)
class Events:
    """Every event that was read, in file order.

    Attributes:
        user, item: int32 (n,), codes into the keys.
        rating: float32 (n,).
        time: int64 (n,), UTC seconds.
        user_keys, item_keys: Arrow strings; the place is the code.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray
    user_keys: pa.Array
    item_keys: pa.Array

    def __len__(self) -> int:
        """Number of events."""
        return len(self.user)


class KeyCodes:
    """Turns a stream of strings into codes in order of first appearance.

    Strings wait until as many are pending as half the dictionary (at least a million); then dictionary and
    pending chunks are encoded in one pass of a hash table. The dictionary stands first, so its codes never
    change, and the work stays proportional to the number of strings.
    """

    def __init__(self, least_pending: int = 1 << 20):
        self.keys: pa.Array = pa.array([], pa.string())
        self._least = least_pending
        self._pending: list[pa.Array] = []
        self._n_pending = 0
        self._codes: list[np.ndarray] = [np.zeros(0, np.int32)]

    def add(self, values: pa.ChunkedArray) -> None:
        """Append strings."""
        self._pending.extend(values.chunks)
        self._n_pending += len(values)
        if self._n_pending >= max(self._least, len(self.keys) // 2):
            self._encode()

    def finish(self) -> tuple[np.ndarray, pa.Array]:
        """All codes (int32) in order, and the keys."""
        self._encode()
        return np.concatenate(self._codes), self.keys

    def _encode(self) -> None:
        if not self._n_pending:
            return
        encoded = pa.chunked_array([self.keys, *self._pending], pa.string()).dictionary_encode()
        chunks = encoded.chunks
        known = len(self.keys)
        self.keys = chunks[-1].dictionary
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
        self._codes.append(codes[known:])
        self._pending, self._n_pending = [], 0


class ReviewTexts:
    """Texts and headlines of every event, in a temporary file without a name: no kill leaves it behind.

    So the files are read once, although which events are kept is known only after the last. Compressed, it
    takes a third to a half of what the texts do.
    """

    def __init__(self, folder: Path):
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by take)
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_stream(self._file, _TEXTS, options=options)

    def add(self, table: pa.Table, names: tuple[str, ...]) -> None:
        """Append a block's columns of these names; null where the format has none."""
        columns = [table[name] for name in names] or [pa.nulls(len(table), pa.string())] * len(_TEXTS)
        self._writer.write_table(pa.table(columns, _TEXTS))

    def take(self, rows: np.ndarray) -> pa.Table:
        """Those of some events, once; the file is gone afterwards.

        Args:
            rows: int64, indices into the events, in any order.

        Returns:
            ``review_text`` and ``summary``, large_string columns in the order of ``rows``; null where absent.
        """
        self._writer.close()
        self._file.seek(0)
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        parts = [_TEXTS.empty_table()]
        start = 0
        with self._file, progress("read texts", len(rows), " reviews") as bar:
            for batch in pa.ipc.open_stream(self._file):
                low, high = np.searchsorted(ascending, [start, start + len(batch)])
                chosen = batch.take(pa.array(ascending[low:high] - start))
                parts.append(pa.Table.from_batches([chosen]))
                start += len(batch)
                bar.update(int(high - low))
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        large = pa.schema([(field.name, pa.large_string()) for field in _TEXTS])
        return pa.concat_tables(parts).cast(large).combine_chunks().take(pa.array(back))


@dataclass(frozen=True)
class Reviews:
    """What was read: events in file order, the files with their formats' names, and lines that were dropped.

    ``texts`` is ``None`` unless asked for.
    """

    events: Events
    files: list[InputFile]
    formats: list[str]
    bad: BadLines
    texts: ReviewTexts | None


def read_reviews(files: list[InputFile], bad: BadLines, *, texts_in: Path | None = None) -> Reviews:
    """Read every file's events.

    Args:
        files: what to read, in this order.
        bad: counts lines that cannot be read, or stops at the first.
        texts_in: folder for the texts, which are kept too; ``None``: they are not read.

    Raises:
        UserError: a file is damaged, of no known format, or a line is bad.
    """
    users, items = KeyCodes(), KeyCodes()
    ratings, times = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    texts = ReviewTexts(texts_in) if texts_in else None
    formats = []
    rows = 0
    with progress("read reviews", total_bytes(files), "B") as bar:
        for file in files:
            with _opened(file, bad, with_texts=texts is not None) as opened:
                formats.append(opened.format)
                user, item, rating, time = opened.fields
                for table, lines, raw_bytes in opened.tables:
                    users.add(table[user])
                    items.add(table[item])
                    ratings.append(table[rating].to_numpy().astype(np.float32))
                    times.append(table[time].to_numpy() // opened.time_divisor)
                    if texts:
                        texts.add(table, opened.text)
                    file.lines += lines
                    rows += len(table)
                    bar.set_postfix_str(f"{rows:,} rows", refresh=False)
                    bar.update(raw_bytes)
    bad.check_share(files[0].uri, sum(file.lines for file in files))
    if not rows:
        raise UserError(f"{files[0].uri}: no review could be read", code="reviews.empty")
    (user_codes, user_keys), (item_codes, item_keys) = users.finish(), items.finish()
    events = Events(
        user_codes, item_codes, np.concatenate(ratings), np.concatenate(times), user_keys, item_keys
    )
    return Reviews(events, files, formats, bad, texts)


@dataclass(frozen=True)
class _Opened:
    """A review file that is being read.

    Attributes:
        format: its name.
        fields: columns of the tables with user, item, rating and time.
        time_divisor: 1 for times in seconds, 1000 for milliseconds.
        text: columns with the review's text and headline, or empty.
        tables: (table, lines read for it, bytes of the file read for it).
    """

    format: str
    fields: tuple[str, ...]
    time_divisor: int
    text: tuple[str, ...]
    tables: Iterator[tuple[pa.Table, int, int]]


@contextmanager
def _opened(file: InputFile, bad: BadLines, *, with_texts: bool) -> Iterator[_Opened]:
    """A file of lines, or a table.

    Raises:
        UserError: it is damaged or of no known format.
    """
    with ExitStack() as stack:
        try:
            found, blocks = recognized(ahead(read_blocks(file)), file.uri, recognize_reviews)
        except ParquetFoundError:
            table = stack.enter_context(open_parquet(file, whole=True))
            opened = _opened_table(ReviewReader.of(table, with_texts=with_texts), bad)
        else:
            opened = _opened_lines(found, blocks, bad, with_texts=with_texts)
        yield opened


def _opened_lines(
    found: ReviewFormat, blocks: Iterator[Block], bad: BadLines, *, with_texts: bool
) -> _Opened:
    read = read_tables(blocks, found.with_texts() if with_texts else found.parser, bad)
    return _Opened(
        found.name,
        tuple(column.name for column in found.parser.columns),
        found.time_divisor,
        found.text,
        ((table, block.lines, block.raw_bytes) for block, table in read),
    )


def _opened_table(reader: ReviewReader, bad: BadLines) -> _Opened:
    schema, tables = reader.schema, ahead(reader.tables(bad))
    return _Opened(schema.name, schema.fields, reader.time_divisor, schema.text, tables)
