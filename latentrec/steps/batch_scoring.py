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
from latentrec.decoding import DecodingOptions
from latentrec.registry.model_registry import RegisteredVersion, Registry
from latentrec.serving.recommendation_service import RecommendationService, ServingModel
from latentrec.serving.request_schemas import MAX_ROWS, BadRequest, Parameters, parse_rows
from latentrec.steps.score_shards import BATCH_KEY, COMPRESSION, SCHEMA, SHARD_KEY, WHOLE, Shard, is_scored
from latentrec.steps.users_to_score import read_users
from latentrec.storage import check_output_file, is_local, join, store_for

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
            batches = _batches(read_users(users, Path(folder)), batch_size)
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
