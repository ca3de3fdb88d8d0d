"""What a step could not send before it ended: kept beside the steps' status, sent by the run's last step."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from latentrec.storage import join, store_for
from latentrec.tracking.delivery import Delivery
from latentrec.tracking.run_context import RunContext

_SUFFIX = ".jsonl"
_BATCH = 500


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
    uri = join(root, f"{step}.{os.getpid()}{_SUFFIX}")
    try:
        store = store_for(uri)
        lines = []
        for number, line in enumerate(left.splitlines()):
            record = _parse(line)
            if record["kind"] == "artifact":
                source = Path(record["path"])
                files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
                folder = join(root, "files", f"{step}.{os.getpid()}", str(number))
                record["kept"] = {str(path.relative_to(source.parent)): "" for path in files}
                for path in files:
                    name = str(path.relative_to(source.parent))
                    record["kept"][name] = store.upload_file(path, join(folder, name)).uri
            lines.append(json.dumps(record).encode())
        store.write_bytes(uri, b"\n".join(lines) + b"\n")
    except Exception:
        return None
    return uri


def list_undelivered(root: str) -> list[tuple[str, str]]:
    """(step, location) of each hand-over below ``root``."""
    found = [info.uri for info in store_for(root).list(root + "/") if info.uri.endswith(_SUFFIX)]
    return [(uri.rsplit("/", 1)[1].rsplit(".", 2)[0], uri) for uri in found]


def send_undelivered(uri: str, delivery: Delivery) -> int:
    """Deliver one hand-over and remove it; returns the number of records.

    Raises:
        Exception: the server is away; the hand-over stays.
    """
    store = store_for(uri)
    records = [_parse(line) for line in store.read_bytes(uri).splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        for number, record in enumerate(records):
            kept = record.pop("kept", None) if record["kind"] == "artifact" else None
            for name, location in (kept or {}).items():
                path = Path(folder) / str(number) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                store.download_file(location, path)
                record["path"] = str(Path(folder) / str(number) / name.split("/", 1)[0])
                record.setdefault("locations", []).append(location)
        for start in range(0, len(records), _BATCH):
            delivery.send(records[start : start + _BATCH])
    for record in records:
        for location in record.get("locations", []):
            store.delete(location)
    store.delete(uri)
    return len(records)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        return {"kind": "damaged"}
