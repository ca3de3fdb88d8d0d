"""Data preparation against plain Python loops, orjson, polars and duckdb: time, processor time, peak memory.

Every contender runs in a process of its own, in turns, on the same generated file; the rows that it writes
are compared with ours first. ``--scale`` measures ours alone at several sizes and extrapolates to the
largest public categories.

    python -m benchmarks.data_prep --reviews 5000000 --repeats 3
    python -m benchmarks.data_prep --scale 1000000 5000000 20000000
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.data_prep_reviews import write_reviews
from benchmarks.harness import device, record_entry
from benchmarks.processes import run_measured

ROOT = Path(__file__).resolve().parents[1]
CONTENDERS = ("ours", "json", "orjson", "polars", "duckdb")
TABLES = {
    "users": ["user_id", "user_key"],
    "items": ["item_id", "item_key"],
    "interactions": None,
    "train": None,
    "valid": None,
    "test": None,
}
LARGEST = {"Books 2018": 51_311_621, "Home and Kitchen 2023": 67_409_944}


def run(reviews: int = 5_000_000, repeats: int = 3, folder: str | None = None) -> dict[str, dict[str, Any]]:
    """Entries of ``results.json``: ``data_prep_vs_python`` and ``data_prep_memory_vs_python``.

    Raises:
        RuntimeError: a contender failed or wrote other rows than ours.
    """
    contenders = [name for name in CONTENDERS if name in ("ours", "json") or find_spec(name)]
    for name in set(CONTENDERS) - set(contenders):
        print(f"{name} is not installed (pip install {name}) and is left out", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        source = write_reviews(Path(folder or name) / f"reviews-{reviews}.json", reviews)
        measured: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
        for _ in range(repeats):
            for contender in contenders:
                measured[contender].append(measure(contender, source, work / contender))
                print(contender, measured[contender][-1], file=sys.stderr, flush=True)
        for contender in contenders[1:]:
            compare(work / "ours", work / contender)
        size = source.stat().st_size
    middle = {
        contender: {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        for contender, runs in measured.items()
    }
    ours, plain = middle["ours"], middle["json"]
    common = {
        "repeats": repeats,
        "device": device(),
        "sizes": {"reviews": reviews, "bytes": size, "k_core": 5},
    }
    return {
        "data_prep_vs_python": {
            "ours": ours["seconds"], "reference": plain["seconds"], "unit": "s",
            "ratio": plain["seconds"] / ours["seconds"], **common, "all": middle,
            "reviews_per_s": reviews / ours["seconds"],
            "reviews_per_cpu_s": reviews / ours["cpu_seconds"],
            "mb_per_cpu_s": size / 1e6 / ours["cpu_seconds"],
        },
        "data_prep_memory_vs_python": {
            "ours": ours["peak_mb"], "reference": plain["peak_mb"], "unit": "MB",
            "ratio": plain["peak_mb"] / ours["peak_mb"], **common,
        },
    }  # fmt: skip


def scale(sizes: list[int], folder: str | None = None) -> dict[str, Any]:
    """Time and memory of ours at several sizes, the line through them, and what it says of the largest."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for reviews in sizes:
            source = write_reviews(Path(folder or name) / f"reviews-{reviews}.json", reviews)
            one = measure("ours", source, Path(name) / "ours")
            rows.append({"reviews": reviews, "bytes": source.stat().st_size, **one})
            print(rows[-1], file=sys.stderr, flush=True)
    n = np.array([row["reviews"] for row in rows], float)
    lines = {}
    for key in ("seconds", "cpu_seconds", "peak_mb"):
        slope, base = np.polyfit(n, [row[key] for row in rows], 1)
        lines[key] = {"base": base, "per_million": slope * 1e6}
    extrapolated = {
        name: {key: line["base"] + line["per_million"] * count / 1e6 for key, line in lines.items()}
        for name, count in LARGEST.items()
    }
    return {"device": device(), "rows": rows, "lines": lines, "extrapolated": extrapolated}


def measure(contender: str, source: Path, output: Path) -> dict[str, float]:
    """Wall seconds, processor seconds and peak memory (MB) of one run in a process of its own."""
    if contender == "ours":
        command = ["-m", "latentrec", "data-prep", "--reviews", str(source), "--output", str(output)]
    else:
        output.mkdir(exist_ok=True)
        command = ["-m", "benchmarks.data_prep_rivals", contender, str(source), str(output)]
    return run_measured(command, ROOT)


def compare(ours: Path, theirs: Path) -> None:
    """Row for row, in order.

    Raises:
        RuntimeError: a table differs.
    """
    for name, columns in TABLES.items():
        left = pq.read_table(ours / f"{name}.parquet", columns=columns)
        right = pq.read_table(theirs / f"{name}.parquet").select(left.column_names).cast(left.schema)
        if not left.equals(right):
            raise RuntimeError(f"{theirs.name} wrote another {name}.parquet than ours")


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reviews", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=int, nargs="+", default=[])
    parser.add_argument("--record", action="store_true", help="write into results.json and RESULTS.md")
    parser.add_argument("--folder", help="for the generated files (kept there); default: a temporary one")
    arguments = parser.parse_args()
    if arguments.scale:
        result: dict[str, Any] = scale(arguments.scale, arguments.folder)
    else:
        result = run(arguments.reviews, arguments.repeats, arguments.folder)
    print(json.dumps(result, indent=2))
    if arguments.record and not arguments.scale:
        for name, entry in result.items():
            record_entry(name, entry)


if __name__ == "__main__":
    main()
