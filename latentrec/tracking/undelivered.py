"""What a step could not send before it ended: kept beside the steps' status, sent by the run's last step.

The folder may be a bucket that others write to, so nothing in a hand-over says where a file stands: files
are found below the hand-over's own folder, by names that are checked, and only those are sent and removed.
"""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.storage import join, store_for
from latentrec.storage.names import check_relative_name
from latentrec.tracking.delivery import Delivery, MetricsRejected
from latentrec.tracking.disk_queue import parse_record
from latentrec.tracking.run_context import RunContext

_SUFFIX = ".jsonl"
_BATCH = 500
_logger = logging.getLogger(__name__)


def undelivered_root(context: RunContext) -> str | None:
    """Where undelivered records of a pipeline run stand; ``None`` for a command run by hand."""
    if not context.status_root or not context.run_id:
        return None
    return join(context.status_root, "undelivered", context.run_id)


def store_undelivered(context: RunContext, step: str, left: bytes) -> str | None:
    """Keep records (JSON lines) and the files that travel with them; returns where, ``None`` if it failed."""
    root = undelivered_root(context)
    if root is None:
        return None
    uri = join(root, f"{step}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        store = store_for(uri)
        lines = []
        for number, record in enumerate(map(parse_record, left.splitlines())):
            if record["kind"] == "artifact":
                source = Path(record.pop("path"))
                files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
                record["kept"] = [str(path.relative_to(source.parent)) for path in files]
                for path, name in zip(files, record["kept"], strict=True):
                    store.upload_file(path, _kept_file(uri, number, name))
            lines.append(json.dumps(record).encode())
        store.write_bytes(uri, b"\n".join(lines) + b"\n")
    except Exception as error:
        _logger.warning("%s: could not be kept: %s", uri, error)
        return None
    return uri


def list_undelivered(root: str) -> list[tuple[str, str]]:
    """(step, location) of each file of undelivered metrics in ``root``, without the artifacts beside them."""
    names = (info.uri.removeprefix(root + "/") for info in store_for(root).list(root + "/"))
    found = sorted(name for name in names if name.endswith(_SUFFIX) and "/" not in name)
    return [(name.rsplit(".", 2)[0], join(root, name)) for name in found]


def send_undelivered(uri: str, delivery: Delivery) -> int:
    """Deliver one hand-over and remove it; returns the number of records that the server has taken.

    Records that are damaged, or that the server will never take, are reported and left out.

    Raises:
        Exception: the server is away; the hand-over stays.
    """
    store = store_for(uri)
    records, files = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(store.read_bytes(uri).splitlines()):
            try:
                record = parse_record(line)
                if record["kind"] == "damaged":
                    raise UserError("no record", code="tracking.bad_record")
                if record["kind"] == "artifact":
                    names = list(_kept_names(record, uri))
                    fetched = _fetch(uri, number, names, Path(folder))
                    record = {"kind": "artifact", "path": str(fetched)}
                    files += [_kept_file(uri, number, name) for name in names]
                records.append(record)
            except (UserError, FileNotFoundError) as error:
                _logger.warning("%s, line %d: left out: %s", uri, number + 1, error)
        taken = sum(
            _send(uri, delivery, records[start : start + _BATCH]) for start in range(0, len(records), _BATCH)
        )
    for location in files:
        store.delete(location)
    store.delete(uri)
    return taken


def _send(uri: str, delivery: Delivery, records: list[dict[str, Any]]) -> int:
    """Send a batch; where the server refuses it, or its shape is wrong, one after the other."""
    try:
        delivery.send(records)
    except (MetricsRejected, KeyError, TypeError, ValueError, AttributeError) as error:
        if len(records) > 1:
            return sum(_send(uri, delivery, [record]) for record in records)
        _logger.warning("%s: a record of %s is left out: %s", uri, records[0]["kind"], error)
        return 0
    return len(records)


def _kept_names(record: dict[str, Any], uri: str) -> Iterator[str]:
    """The files of one artifact: all of them, or the one, below one name.

    Raises:
        UserError: they are not plain relative names, or below more than one.
    """
    kept = record.get("kept")
    if not isinstance(kept, list) or not kept:
        raise UserError("an artifact without its files", code="tracking.bad_record")
    names = [check_relative_name(name, uri) for name in kept]
    if len({name.partition("/")[0] for name in names}) > 1 or len(set(names)) < len(names):
        raise UserError("an artifact of several names", code="tracking.bad_record")
    yield from names


def _fetch(uri: str, number: int, names: list[str], folder: Path) -> Path:
    """Copy the files of one artifact below ``folder``; returns the artifact's own path there."""
    for name in names:
        path = folder / str(number) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        store_for(uri).download_file(_kept_file(uri, number, name), path)
    return folder / str(number) / names[0].partition("/")[0]


def _kept_file(uri: str, number: int, name: str) -> str:
    """Where a file of one record of a hand-over stands."""
    root, _, own = uri.rpartition("/")
    return join(root, "files", own.removesuffix(_SUFFIX), str(number), name)
