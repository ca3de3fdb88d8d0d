"""The dataset of the run before: has volume dropped, and is there anything new?"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from latentrec.core import UserError
from latentrec.core.documents import parse_document
from latentrec.data.validation import Check
from latentrec.storage import MANIFEST, Manifest, join, store_for


@dataclass(frozen=True)
class BaselineDataset:
    """What the manifest of the run before says."""

    uri: str
    fingerprint: str
    counts: dict[str, Any]


def read_previous(uri: str) -> BaselineDataset:
    """Read the manifest of a dataset directory (or the manifest itself), wherever it lies.

    Raises:
        UserError: there is none, or it is not that of a dataset.
    """
    where = uri if uri.endswith(".json") else join(uri, MANIFEST)
    try:
        body = parse_document(store_for(where).read_bytes(where))
        if body["kind"] != "dataset":
            raise UserError(
                f"{where} is the manifest of a {body['kind']}, expected a dataset's (--previous)",
                code="dataset.bad_baseline",
            )
        counts = dict(body["counts"])
        events = counts.get("interactions", 0)
        if isinstance(events, bool) or not isinstance(events, int) or events < 0:
            raise ValueError(f"counts.interactions is {ascii(events)[:60]}")
        return BaselineDataset(where, str(body["fingerprint"]), counts)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{where}: no manifest; --previous names the dataset of the run before",
            code="dataset.bad_baseline",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: not a manifest ({error})", code="dataset.bad_baseline") from None


def content_of(manifest: Manifest) -> str:
    """Hash of a dataset's tables alone.

    The fingerprint also holds the configuration, and with it the day that ends the window, which a schedule
    moves on every time: two datasets of the same events before and after a week without any differ in
    fingerprint and agree in this.
    """
    tables = sorted(
        (name, file["sha256"]) for name, file in manifest.files.items() if name.endswith(".parquet")
    )
    return hashlib.sha256(json.dumps(tables).encode()).hexdigest()


def volume_check(previous: BaselineDataset, interactions: int, max_drop: float) -> Check:
    """Whether the number of interactions held up against the previous dataset."""
    before = previous.counts.get("interactions", 0)
    drop = 1 - interactions / before if before else 0.0
    return Check(
        "volume_against_previous",
        drop <= max_drop,
        "error",
        f"{interactions:,} interactions after {before:,} in {previous.uri}: {-drop:+.1%} "
        f"(a drop of up to {max_drop:.0%} is allowed)",
    )
