"""Batch scoring in shards: which users one shard scores, and one file of all shards, byte for byte.

Users are assigned in the batches that are ranked together, batch ``b`` to shard ``b mod count``: every shard
ranks the very batches that one process would, so its scores are the same to the last bit, and the merged file
is the one that a run without shards writes. A shard is deterministic and appears whole or not at all, so one
that was lost is simply scored again.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.core import UserError
from latentrec.core.text import one_line
from latentrec.storage import check_output_file, is_local, join, store_for

SHARD_KEY, BATCH_KEY = b"latentrec.shard", b"latentrec.batch_size"
"""In the metadata of a shard's file, and not in the whole one's."""

COMPRESSION = "zstd"
SCHEMA = pa.schema(
    [
        ("user_key", pa.string()),
        ("item_keys", pa.list_(pa.string())),
        ("titles", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        ("unknown_items", pa.int64()),
        ("fallback", pa.bool_()),
    ]
)
"""One row a user. Parquet names the values of a list its own way: what is read is cast back to this."""


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts; ``number`` counts from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``"2/4"``: the second of four.

        Raises:
            UserError: not of that form, or no such part.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(
                f"--shard is {text!r}, expected I/N with I from 1 to N, for example 2/4",
                code="config.bad_value",
            )
        return cls(int(found[1]), int(found[2]))

    def has(self, batch: int) -> bool:
        """Whether the batch of this index, from 0, is this shard's."""
        return batch % self.count == self.number - 1

    def file_name(self, whole: str) -> str:
        """Name of this shard's file, of the whole file's name; the same for one of one."""
        if self.count == 1:
            return whole
        return f"{whole.removesuffix('.parquet')}-{self.number:05d}-of-{self.count:05d}.parquet"


WHOLE = Shard()
"""All users."""


def merge_shards(folder: str, count: int, name: str) -> tuple[str, int]:
    """Write ``name`` in a folder from its ``count`` shards, one batch in memory at a time.

    Args:
        folder: local or ``gs://``; the shards lie in it, and stay.
        count: how many shards there are.
        name: of the whole file.

    Returns:
        Its location, and how many users it has.

    Raises:
        UserError: a shard is missing, unreadable, cut off, or of another model, other options or count.
    """
    locations = [join(folder, Shard(number, count).file_name(name)) for number in range(1, count + 1)]
    return merge_files(locations, join(folder, name))


def merge_files(locations: Sequence[str], target: str) -> tuple[str, int]:
    """Write ``target`` from the files of all shards; as :func:`merge_shards`, wherever they lie.

    Args:
        locations: of the shards, in their order.
        target: of the whole file.
    """
    count = len(locations)
    if is_local(target):
        target = str(check_output_file(target, is_scored, inputs=locations))
    with tempfile.TemporaryDirectory() as scratch:
        if count == 1:  # a shard of one is the whole file already
            path, file = _read(locations[0], Shard(), Path(scratch))
            store_for(target).upload_file(path, target)
            return target, file.metadata.num_rows
        files = [
            _read(place, Shard(number, count), Path(scratch))[1] for number, place in enumerate(locations, 1)
        ]
        schema = files[0].schema_arrow
        for place, file in zip(locations, files, strict=True):
            if _without(file.schema_arrow, SHARD_KEY) != _without(schema, SHARD_KEY):
                raise UserError(
                    f"{place} is of another model or other options than {locations[0]}; score it again",
                    code="shards.other_options",
                )
        batches = sum(file.num_row_groups for file in files)
        for number, (place, file) in enumerate(zip(locations, files, strict=True), 1):
            expected = len(range(number - 1, batches, count))
            if file.num_row_groups != expected:
                raise UserError(
                    f"{place} has {file.num_row_groups} batches of users, expected {expected}: the shards "
                    "are not of the same users; score them again",
                    code="shards.other_users",
                )
        if batches == 0:
            raise UserError(f"the {count} shards beside {locations[0]} have no users", code="shards.empty")
        made = Path(scratch) / "merged"
        users = 0
        whole = SCHEMA.with_metadata(_without(schema, SHARD_KEY, BATCH_KEY))
        with pq.ParquetWriter(made, whole, compression=COMPRESSION) as writer:
            for batch in range(batches):
                table = files[batch % count].read_row_group(batch // count)
                writer.write_table(table.cast(whole))
                users += table.num_rows
        store_for(target).upload_file(made, target)
    return target, users


def is_scored(path: Path) -> bool:
    """Whether a file is one that batch scoring wrote."""
    try:
        return b"latentrec.model" in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _without(schema: pa.Schema, *keys: bytes) -> dict[bytes, bytes]:
    return {key: value for key, value in (schema.metadata or {}).items() if key not in keys}


def in_order(paths: Sequence[str]) -> list[str]:
    """Local files of shards by the numbers that they state; those that state none come last."""

    def number(path: str) -> int:
        try:
            stated = (pq.read_schema(path).metadata or {}).get(SHARD_KEY, b"")
        except (pa.ArrowException, OSError):
            stated = b""
        found = re.match(rb"\d{1,6}", stated)
        return int(found[0]) if found else 1_000_000

    return sorted(paths, key=number)


def _read(place: str, shard: Shard, scratch: Path) -> tuple[Path, pq.ParquetFile]:
    """A shard's file, and a copy of it here."""
    number, count = shard.number, shard.count
    path = scratch / f"shard-{number}"
    try:
        store_for(place).download_file(place, path)
    except FileNotFoundError:
        raise UserError(
            f"{place}: no such file; score it with --shard {number}/{count}", code="shards.not_found"
        ) from None
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{place}: not readable Parquet ({one_line(error)}); score it again", code="shards.unreadable"
        ) from None
    written = (file.schema_arrow.metadata or {}).get(SHARD_KEY, b"").decode("utf-8", "replace")
    if written != (f"{number}/{count}" if count > 1 else "") or not is_scored(path):
        raise UserError(
            f"{place} is shard {written or 'none'}, expected {number}/{count}; score it again",
            code="shards.other_users",
        )
    return path, file
