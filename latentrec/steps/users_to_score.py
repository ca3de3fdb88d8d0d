"""The users that are scored: a dataset directory, Parquet or JSON lines; one user in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.core import UserError
from latentrec.core.documents import parse_document
from latentrec.core.text import one_line
from latentrec.data import Dataset
from latentrec.data.reading.byte_streams import MAX_LINE_BYTES
from latentrec.data.reading.line_reader import UNFIT
from latentrec.serving.request_schemas import MAX_HISTORY
from latentrec.storage import is_local, local_path, store_for


def read_users(users: str, folder: Path) -> Iterator[tuple[str, Any]]:
    """Each user's key and history (item keys, oldest first; not checked).

    Args:
        users: a dataset directory (all its users, with all that they have bought), or a file, local or
            ``gs://``: Parquet or JSON lines with ``user_key`` and ``history``.
        folder: where the file is copied to.

    Raises:
        UserError: no such file, or one that cannot be read; names the row or line.
    """
    if is_local(users) and local_path(users).is_dir():
        yield from _users_of_dataset(local_path(users))
        return
    path = folder / "users"
    try:
        store_for(users).download_file(users, path)
    except FileNotFoundError:
        raise UserError(
            f"{users}: no such file; expected Parquet or JSON lines with user_key and history",
            code="users.not_found",
        ) from None
    with path.open("rb") as stream:
        is_parquet = stream.read(4) == b"PAR1"
    yield from _users_of_parquet(path, users) if is_parquet else _users_of_lines(path, users)


def _users_of_dataset(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Every user with the latest of what they have bought, in order of user_id.

    Events lie by user, then time, and users by their number: both files are read side by side.
    """
    item_keys = Dataset(directory, verify=False).item_keys
    events = (
        event
        for batch in pq.ParquetFile(directory / "interactions.parquet").iter_batches(
            columns=["user_id", "item_id"]
        )
        for event in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )
    event = next(events, None)
    user = 0
    for batch in pq.ParquetFile(directory / "users.parquet").iter_batches(columns=["user_key"]):
        for key in batch.column(0).to_pylist():
            history: list[str] = []
            while event is not None and event[0] <= user:
                if event[0] < user:
                    raise _not_by_user(directory)
                history.append(item_keys[event[1]])
                event = next(events, None)
            yield key, history[-MAX_HISTORY:]
            user += 1
    if event is not None:
        raise _not_by_user(directory)


def _not_by_user(directory: Path) -> UserError:
    return UserError(
        f"{directory / 'interactions.parquet'} does not lie by the users of users.parquet; it was changed "
        "after data-prep: make the dataset again",
        code="users.unreadable",
    )


def _users_of_parquet(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    try:
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{name}: not readable Parquet ({one_line(error)})", code="users.unreadable"
        ) from None
    missing = {"user_key", "history"} - names
    if missing:
        raise UserError(
            f"{name} has no column '{min(missing)}'; expected user_key and history (a list of item keys)",
            code="users.missing_column",
        )
    rows = 0
    batches = file.iter_batches(columns=["user_key", "history"])
    while True:
        try:
            batch = next(batches, None)
            found = batch.to_pylist() if batch is not None else None
        except (pa.ArrowException, OSError, ValueError) as error:  # damaged further on, or text that is none
            raise UserError(
                f"{name}, after row {rows:,}: not readable Parquet ({one_line(error)})",
                code="users.unreadable",
            ) from None
        if found is None:
            return
        for row in found:
            rows += 1
            if (key := _user_key(row["user_key"])) is None:
                shown = "null" if row["user_key"] is None else ascii(row["user_key"])[:60]
                raise UserError(
                    f"{name}, row {rows:,}: 'user_key' is {shown}, expected the user's key",
                    code="users.bad_row",
                )
            yield key, row["history"] or []


def _users_of_lines(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if not line.strip():
                continue
            try:
                if len(line) > MAX_LINE_BYTES:
                    raise ValueError(f"longer than {MAX_LINE_BYTES >> 20} MB")
                row = parse_document(line)
                if not isinstance(row, dict) or "user_key" not in row or "history" not in row:
                    raise ValueError("no object with these fields")
                if (key := _user_key(row["user_key"])) is None:
                    raise ValueError(f"'user_key' is {ascii(row['user_key'])[:60]}")
            except ValueError as error:
                raise UserError(
                    f'{name}, line {number:,}: expected {{"user_key": "…", "history": ["ITEM_KEY", …]}} '
                    f"({one_line(error)})",
                    code="users.bad_row",
                ) from None
            yield key, row["history"]


def _user_key(value: Any) -> str | None:
    """A user's key as text; ``None`` for what is none: no text or whole number, empty, or not UTF-8."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return None
    key = str(value)
    return None if UNFIT.search(key) else key
