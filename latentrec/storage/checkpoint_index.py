"""``index.json`` of a checkpoint store: what it holds, and its check when it is read back."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from latentrec.core import UserError
from latentrec.core.documents import parse_document
from latentrec.storage.names import check_file_entries, check_relative_name

INDEX = "index.json"
SCHEMA_VERSION = 1
MAX_INDEX_BYTES = 64 << 20
CHECKPOINT_ID = re.compile(r"\d{10,20}-t(\d{1,18})-[0-9a-f]{12}")
"""Step, fencing token and a random part, as :meth:`CheckpointStore.save` writes them."""


@dataclass
class Index:
    """The content of ``index.json``.

    ``holder`` is the attempt that writes, ``run`` its pipeline run (empty outside a pipeline); ``version`` is
    the store's, ``None`` where nothing stands yet.
    """

    work: dict[str, Any]
    token: int = 0
    holder: str = ""
    run: str = ""
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    best: str | None = None
    schema_version: int = SCHEMA_VERSION
    version: str | None = None

    def to_bytes(self) -> bytes:
        """As stored: everything but ``version``."""
        body = {name: value for name, value in asdict(self).items() if name != "version"}
        return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()


def parse_index(data: bytes, uri: str, cure: str) -> Index:
    """Read and check an index.

    Args:
        data: as stored.
        uri: for the message.
        cure: what to do about a bad one, for the message.

    Raises:
        UserError: not an index, of another schema, or a name in it leads outside its folder.
    """
    if len(data) > MAX_INDEX_BYTES:
        raise UserError(
            f"{uri}: larger than {MAX_INDEX_BYTES >> 20} MB, not a checkpoint index; {cure}",
            code="checkpoint.bad_index",
        )

    def refuse(what: str) -> UserError:
        return UserError(f"{uri}: not a checkpoint index ({what}); {cure}", code="checkpoint.bad_index")

    try:
        body = parse_document(data)
    except ValueError as error:
        raise refuse(str(error)) from None
    if not isinstance(body, dict):
        raise refuse(f"a JSON {type(body).__name__}")
    if (version := body.get("schema_version")) != SCHEMA_VERSION or isinstance(version, bool):
        raise UserError(
            f"{uri}: schema_version is {ascii(version)[:40]}, this version reads {SCHEMA_VERSION}; "
            "choose another --checkpoint-root",
            code="checkpoint.other_version",
        )
    expected = {"work": dict, "token": int, "holder": str, "checkpoints": list, "best": str | None}
    for name, kind in expected.items():
        if name not in body:
            raise refuse(f"no {name!r}")
        if not isinstance(body[name], kind) or isinstance(body[name], bool):
            raise refuse(f"{name!r} is {ascii(body[name])[:60]}")
    if not isinstance(body.get("run", ""), str):
        raise refuse(f"'run' is {ascii(body['run'])[:60]}")
    unknown = set(body) - {*expected, "run", "schema_version"}
    if unknown:
        raise refuse(f"unknown field {ascii(min(unknown))[:60]}")
    if body["token"] < 0 or not isinstance(body["work"].get("step"), str):
        raise refuse("its token is negative or its work has no step")
    for entry in body["checkpoints"]:
        _check_entry(entry, uri, refuse)
    return Index(**body)


def _check_entry(entry: Any, uri: str, refuse: Any) -> None:
    if not isinstance(entry, dict) or set(entry) != {"id", "step", "metadata", "created", "files"}:
        raise refuse("an entry of 'checkpoints' has other fields than id, step, metadata, created, files")
    check_relative_name(entry["id"], uri)
    if not CHECKPOINT_ID.fullmatch(entry["id"]):
        raise refuse(f"the checkpoint id {ascii(entry['id'])[:60]}")
    created = entry["created"]
    if isinstance(entry["step"], bool) or not isinstance(entry["step"], int):
        raise refuse(f"the step {ascii(entry['step'])[:60]}")
    # Times beyond the year 9999 cannot be shown, and none of them was ever written.
    if isinstance(created, bool) or not isinstance(created, int | float) or not 0 <= created < 2.5e11:
        raise refuse(f"the time {ascii(created)[:60]}")
    if not math.isfinite(created) or not isinstance(entry["metadata"], dict):
        raise refuse("an entry's metadata is no object")
    check_file_entries(entry["files"], uri, "checkpoint.bad_index")
