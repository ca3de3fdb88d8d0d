"""Parquet files as a warehouse or Spark exports them: opened, columns found by name, values made of a type.

A file is read batch by batch, so memory does not grow with its size. A column may be absent from the files
and stand in the names of their folders instead (``rating=5/part-0.parquet``): Hive's partitioning.
"""

from __future__ import annotations

import datetime
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from latentrec.core import UserError
from latentrec.core.text import one_line, printable
from latentrec.data.reading.input_files import InputFile
from latentrec.storage import is_local, local_path, store_for

BATCH_ROWS = 1 << 14
_BUFFER_BYTES = 1 << 20
_NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
_EXPECTED = {
    "text": ("text or whole numbers", "STRING"),
    "number": ("numbers", "FLOAT64"),
    "time": ("whole numbers, timestamps or dates", "INT64"),
}


@dataclass(frozen=True)
class ParquetTable:
    """One open file.

    Attributes:
        uri: for messages.
        bytes: of the file as stored.
        parquet: the file.
        folders: values of the columns that stand in the names of its folders; ``None`` for null.
    """

    uri: str
    bytes: int
    parquet: pq.ParquetFile
    folders: dict[str, str | None]

    def share(self, start: int, rows: int) -> int:
        """Bytes of the file that some rows stand for, for progress; all rows together have all bytes."""
        total = max(self.parquet.metadata.num_rows, 1)
        return self.bytes * (start + rows) // total - self.bytes * start // total

    def names(self) -> list[str]:
        """Columns of the file, then those that only its folders have."""
        own = self.parquet.schema_arrow.names
        return [*own, *(name for name in self.folders if name not in own)]

    def find(self, names: Sequence[str]) -> str | None:
        """The column with the first of some names, upper and lower case alike.

        Raises:
            UserError: several columns have it.
        """
        for wanted in names:
            found = [name for name in self.names() if name.lower() == wanted.lower()]
            if len(found) > 1:
                raise UserError(
                    f"{self.uri}: {len(found)} columns are named '{wanted}'; export one of them",
                    code="reviews.unknown_format",
                )
            if found:
                return found[0]
        return None

    def kind(self, name: str) -> pa.DataType:
        """Type of a column; a folder's value is text."""
        schema = self.parquet.schema_arrow
        kind = schema.field(name).type if name in schema.names else pa.string()
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def require(self, name: str, use: str) -> None:
        """Check the type of a column, or its value where a folder gives it.

        Args:
            name: of the column.
            use: what it is read as: ``text``, ``number`` or ``time``.

        Raises:
            UserError: it cannot be read so.
        """
        if name not in self.parquet.schema_arrow.names:
            self.constant(name, use)
            return
        kind = self.kind(name)
        if not _fits(kind, use):
            expected, cast = _EXPECTED[use]
            raise UserError(
                f"{self.uri}: column '{printable(name)}' has the type {printable(str(kind))[:80]}, expected "
                f"{expected}; cast it where it is exported, for example CAST({printable(name)} AS {cast})",
                code="reviews.wrong_type",
            )

    def constant(self, name: str, use: str) -> str | float | int | None:
        """The value that a folder gives for all rows.

        Raises:
            UserError: it cannot be read as ``use`` says.
        """
        text = self.folders[name]
        if text is None or use == "text":
            return text
        try:
            return float(text) if use == "number" else _seconds_or_number(text)
        except ValueError:
            expected = "a number" if use == "number" else "a whole number or a day as YYYY-MM-DD"
            raise UserError(
                f"{self.uri}: the folder says {printable(name)}={ascii(text)[:60]}, expected {expected}",
                code="reviews.wrong_type",
            ) from None

    def batches(self, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The file's own columns of these names (``struct.field`` for a part of one), batch by batch.

        Raises:
            UserError: the file is damaged; the message says after which row.
        """
        done = 0
        found = self.parquet.iter_batches(batch_size=rows, columns=list(columns))
        while True:
            with _damage_of(self.uri, f", after row {done:,}"):
                batch = next(found, None)
            if batch is None:
                break
            yield batch
            done += batch.num_rows


@contextmanager
def open_parquet(file: InputFile, *, whole: bool) -> Iterator[ParquetTable]:
    """Open an input.

    Args:
        file: what to open; its size and sha256 are filled in where all of it is read.
        whole: whether the rows are wanted: a remote file is then copied to a temporary one, verified and
            hashed. Otherwise only its index is fetched, which stands at its end.

    Raises:
        UserError: the file is gone, damaged or cut off.
    """
    with ExitStack() as stack:
        try:
            source: Path | BinaryIO
            if whole:
                source = _local_copy(file, stack)
            else:
                source = stack.enter_context(store_for(file.uri).open_read(file.uri))
        except FileNotFoundError:
            raise UserError(f"{file.uri}: no such file", code="reviews.not_found") from None
        with _damage_of(file.uri):
            # Pages are streamed: without a buffer, a column's whole share of a row group is read at once.
            parquet = pq.ParquetFile(source, buffer_size=_BUFFER_BYTES, page_checksum_verification=True)
        yield ParquetTable(file.uri, file.bytes, parquet, _folder_values(file.uri))


def as_text(values: pa.Array) -> pa.Array:
    """Strings of text or whole numbers."""
    return _plain(values).cast(pa.string())


def as_number(values: pa.Array) -> pa.Array:
    """float64 of any numbers."""
    return _plain(values).cast(pa.float64(), safe=False)


def as_time(values: pa.Array) -> pa.Array:
    """int64: whole numbers as they are, of timestamps and dates the UTC seconds (no zone counts as UTC)."""
    values = _plain(values)
    if pa.types.is_timestamp(values.type):
        utc = values.cast(pa.timestamp(values.type.unit))
        return pc.floor_temporal(utc, unit="second").cast(pa.timestamp("s")).cast(pa.int64())
    if pa.types.is_date(values.type):
        return values.cast(pa.timestamp("s")).cast(pa.int64())
    return values.cast(pa.int64(), safe=False)


def is_valid(values: pa.Array | pa.RecordBatch) -> bool:
    """Whether all text in it is UTF-8: a Parquet file may say so of bytes that are not."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _fits(kind: pa.DataType, use: str) -> bool:
    types = pa.types
    if types.is_integer(kind):
        return True
    if use == "text":
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if use == "number":
        return types.is_floating(kind) or types.is_decimal(kind)
    return types.is_timestamp(kind) or types.is_date(kind)


def _seconds_or_number(text: str) -> int:
    """A whole number, or the UTC seconds of a day."""
    try:
        return int(text)
    except ValueError:
        day = datetime.date.fromisoformat(text)
    return (day - datetime.date(1970, 1, 1)).days * 86_400


def _folder_values(uri: str) -> dict[str, str | None]:
    """``…/year=2018/rating=5/part-0.parquet`` has the columns year and rating, in every row the same."""
    parts = (part.partition("=") for part in uri.split("/")[:-1] if "=" in part)
    return {
        unquote(name): None if value == _NULL_FOLDER else unquote(value) for name, _, value in parts if name
    }


def _local_copy(file: InputFile, stack: ExitStack) -> Path:
    if is_local(file.uri):
        path = local_path(file.uri)
    else:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "copy"
        store_for(file.uri).download_file(file.uri, path)
    with path.open("rb") as stream:
        file.sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        file.bytes = stream.tell()
    return path


@contextmanager
def _damage_of(uri: str, where: str = "") -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk, and not of what the file holds
            raise
        raise UserError(
            f"{uri}{where}: the Parquet file is damaged or cut off ({one_line(error)}); write it again",
            code="reviews.damaged",
        ) from None
