"""Records of finished trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "results" / "controls"


def record_path(dataset: str, trial: str, seed: int) -> Path:
    """Where the record of a trial stands; the ranks are beside it as ``.parquet``."""
    return RECORDS / dataset / f"{trial}-s{seed}.json"


def read_record(dataset: str, trial: str, seed: int) -> dict[str, Any] | None:
    """The record, or ``None`` where the trial was not run."""
    path = record_path(dataset, trial, seed)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def read_ranks(dataset: str, trial: str, seed: int) -> dict[str, np.ndarray]:
    """Column → int64 (S,): ``user_id``, ``title_rank`` (0: not among the ranked) and so on."""
    table = pq.read_table(record_path(dataset, trial, seed).with_suffix(".parquet"))
    return {name: table[name].to_numpy().astype(np.int64) for name in table.column_names}


def seeds_of(dataset: str, trial: str) -> list[int]:
    """Seeds that were run."""
    paths = (RECORDS / dataset).glob(f"{trial}-s*.json")
    found = (path.stem.removeprefix(f"{trial}-s") for path in paths)
    return sorted(int(text) for text in found if text.isdigit())


def write_ranks(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write the ranks of one trial."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({name: pa.array(column) for name, column in columns.items()}), path, compression="zstd"
    )
