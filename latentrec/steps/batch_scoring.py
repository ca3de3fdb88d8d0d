"""Recommendations for many users at once: a registered model to one Parquet file, here or in a bucket."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.core import UserError, progress
from latentrec.core.documents import parse_document
from latentrec.core.text import one_line
from latentrec.data import Dataset
from latentrec.data.reading.byte_streams import MAX_LINE_BYTES
from latentrec.data.reading.line_reader import UNFIT
from latentrec.decoding import DecodingOptions
from latentrec.registry.model_registry import RegisteredVersion, Registry
from latentrec.serving.recommendation_service import RecommendationService, ServingModel
from latentrec.serving.request_schemas import MAX_HISTORY, MAX_ROWS, BadRequest, Parameters, parse_rows
from latentrec.steps.score_shards import BATCH_KEY, COMPRESSION, SCHEMA, SHARD_KEY, WHOLE, Shard, is_scored
from latentrec.storage import check_output_file, is_local, join, local_path, store_for

FILE_NAME = "recommendations.parquet"


@dataclass(frozen=True)
class BatchResult:
    """What was written: where, for how many users, and how many of them got the fallback."""

    uri: str
    users: int
    fallbacks: int
    model: RegisteredVersion


def batch_score(
    *,
    model: str,
    users: str,
    output: str,
    k: int = 10,
    exclude_history: bool | None = None,
    batch_size: int = 256,
    shard: Shard = WHOLE,
) -> BatchResult:
    """Write the ``k`` best items of every user.

    Args:
        model: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        users: a dataset directory (all its users, with all that they have bought), or a file, local or
            ``gs://``: Parquet or JSON lines with ``user_key`` and ``history`` (item keys, oldest first).
        output: a ``.parquet`` location, or a folder in which ``recommendations.parquet`` is made. It appears
            whole or not at all; its metadata names the model's version and fingerprint.
        k: list length.
        exclude_history: leave out what the user has; ``None``: as the model was evaluated.
        batch_size: users ranked together.
        shard: score these batches only, to a file of the shard's own in the folder ``output``
            (:func:`latentrec.steps.score_shards.merge_shards`).

    Raises:
        UserError: no such model or file, or a row that is malformed (the message names it).
    """
    if shard.count > 1 and output.endswith(".parquet"):
        raise UserError(
            f"--output is {output!r}; expected a folder, where each shard has a file of its own",
            code="output.bad_location",
        )
    target = output if output.endswith(".parquet") else join(output, shard.file_name(FILE_NAME))
    if is_local(target):
        target = str(check_output_file(target, is_scored, inputs=[users]))
    registered, loaded = load_registered(model)
    service = RecommendationService(loaded, max_batch=batch_size)
    parameters = Parameters(k, loaded.options.exclude_history if exclude_history is None else exclude_history)
    metadata = {
        "latentrec.model": registered.uri,
        "latentrec.model_fingerprint": registered.tags.get("model.fingerprint", ""),
        "latentrec.parameters": json.dumps(
            {"k": parameters.k, "exclude_history": parameters.exclude_history}
        ),
    }
    if shard.count > 1:
        metadata[SHARD_KEY.decode()] = f"{shard.number}/{shard.count}"
        metadata[BATCH_KEY.decode()] = str(batch_size)
    schema = SCHEMA.with_metadata(metadata)
    seen = count = fallbacks = 0
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / FILE_NAME
        written = pq.ParquetWriter(made, schema, compression=COMPRESSION)
        with written as writer, progress("users", unit="users") as bar:
            batches = _batches(_read_users(users, Path(folder)), batch_size)
            for number, (keys, histories) in enumerate(batches):
                seen += len(keys)
                if not shard.has(number):
                    continue
                rows = _checked(users, seen - len(keys), histories)
                answers = service.recommend(rows, parameters)
                columns: dict[str, Any] = {"user_key": keys}
                for name in schema.names[1:]:
                    columns[name] = [getattr(answer, name) for answer in answers]
                writer.write_table(pa.table(columns, schema=schema))
                count += len(keys)
                fallbacks += sum(answer.fallback for answer in answers)
                bar.update(len(keys))
        if seen == 0:
            raise UserError(f"{users} has no users", code="users.empty")
        store_for(target).upload_file(made, target)
    return BatchResult(target, count, fallbacks, registered)


def load_registered(uri: str) -> tuple[RegisteredVersion, ServingModel]:
    """A registered recommender in this process, with its own catalogue and decoding options."""
    registry = Registry()
    model = registry.resolve(uri)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = registry.artifacts(model)
        options = DecodingOptions.from_config(registry.config(model))
        assistant = registry.download(model, "assistant", Path(folder)) if "assistant" in artifacts else None
        loaded = ServingModel.load(
            registry.download(model, "model", Path(folder)),
            registry.download(model, "catalogue", Path(folder)),
            options,
            assistant,
        )
    return model, loaded


def _checked(users: str, offset: int, histories: list[Any]) -> list[Any]:
    try:
        chunks = (histories[start : start + MAX_ROWS] for start in range(0, len(histories), MAX_ROWS))
        return [row for chunk in chunks for row in parse_rows({"history": history} for history in chunk)]
    except BadRequest as error:
        raise UserError(
            f"{users}, in the {len(histories)} users after user {offset:,}: {error}", code="users.bad_row"
        ) from None


def _batches(users: Iterator[tuple[str, Any]], size: int) -> Iterator[tuple[list[str], list[Any]]]:
    keys: list[str] = []
    histories: list[Any] = []
    for key, history in users:
        keys.append(key)
        histories.append(history)
        if len(keys) == size:
            yield keys, histories
            keys, histories = [], []
    if keys:
        yield keys, histories


def _read_users(users: str, folder: Path) -> Iterator[tuple[str, Any]]:
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
    """Every user with the latest of what they have bought, in order of user_id."""
    dataset = Dataset(directory, verify=False)
    item_keys = dataset.item_keys
    user_keys = pq.read_table(directory / "users.parquet")["user_key"].to_pylist()
    table = pq.read_table(directory / "interactions.parquet", columns=["user_id", "item_id"])
    histories: list[list[str]] = [[] for _ in user_keys]
    for user, item in zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True):
        histories[user].append(item_keys[item])
    for key, history in zip(user_keys, histories, strict=True):
        yield key, history[-MAX_HISTORY:]


def _users_of_parquet(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{name}: not readable Parquet ({one_line(error)})", code="users.unreadable"
        ) from None
    missing = {"user_key", "history"} - set(file.schema_arrow.names)
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
