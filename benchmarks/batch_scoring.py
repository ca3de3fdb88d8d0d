"""Batch scoring in 1, 2 and 4 processes: users a second, start, memory; a million users by the figures.

``latentrec batch-score --shard I/N`` as a user types it, one thread a process, all N at once, at two numbers
of users: the difference is the rate, the rest the start (imports, the model's download, the trie, reading the
users). The merged file must be the one that one process writes, byte for byte. The model (preset ``small``,
random weights: the time does not depend on what it learned) ranks a catalogue of ``--titles``.

    python -m benchmarks.batch_scoring --users 1000 --titles 100000
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import record
from benchmarks.processes import run_measured
from benchmarks.serving import make_model, register

PROCESSES = (1, 2, 4)
BATCH = 50
"""Users ranked together: few enough that every process has as many batches as any other."""
LARGER = 4
"""The second measurement has so many times the users of the first."""
MANY = 1_000_000
PODS = (1, 4, 16)


def write_users(path: Path, item_keys: Sequence[str], count: int) -> Path:
    """``count`` users with 1 to 20 items each, seeded."""
    rng = np.random.default_rng(count)
    lengths = rng.integers(1, 21, count)
    keys = np.asarray(item_keys, dtype=object)[rng.integers(0, len(item_keys), int(lengths.sum()))]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    history = pa.ListArray.from_arrays(pa.array(offsets), pa.array(keys, pa.string()))
    pq.write_table(
        pa.table({"user_key": [f"u{user:07d}" for user in range(count)], "history": history}), path
    )
    return path


def score(users: Path, output: Path, processes: int) -> dict[str, float]:
    """Score in so many processes at once, and merge.

    Returns:
        ``seconds`` until the last shard was written, ``cpu_seconds`` of all, ``peak_mb`` of the largest, and
        ``merge_seconds``.
    """
    arguments = ["-m", "latentrec", "batch-score", "--model", "models:/bench@champion", "--users", str(users)]
    arguments += ["--batch-size", str(BATCH)]
    commands = [
        [*arguments, "--output", str(output), "--shard", f"{number}/{processes}"]
        for number in range(1, processes + 1)
    ]
    begin = time.perf_counter()
    with ThreadPoolExecutor(processes) as pool:
        measured = list(pool.map(lambda command: run_measured(command, output.parent), commands))
    seconds, merged = time.perf_counter() - begin, 0.0
    if processes > 1:
        merge = ["-m", "latentrec", "batch-score", "--merge", str(processes), "--output", str(output)]
        merged = run_measured(merge, output.parent)["seconds"]
    return {
        "seconds": seconds,
        "cpu_seconds": sum(one["cpu_seconds"] for one in measured),
        "peak_mb": max(one["peak_mb"] for one in measured),
        "merge_seconds": merged,
    }


def read_rate(users: Path) -> float:
    """Users a second that a shard reads and leaves to the others."""
    from latentrec.steps.users_to_score import read_users

    begin = time.perf_counter()
    count = sum(1 for _ in read_users(str(users), users.parent))
    return count / (time.perf_counter() - begin)


def estimate(start_s: float, users_per_core_s: float, read_per_s: float, merge_per_s: float) -> list[dict]:
    """Hours of :data:`MANY` users by pods of one core each, and all pods' core hours."""
    rows = []
    for pods in PODS:
        scoring = start_s + MANY / read_per_s + MANY / pods / users_per_core_s
        hours = (scoring + (MANY / merge_per_s if pods > 1 else 0.0)) / 3600
        rows.append({"pods": pods, "hours": hours, "core_hours": pods * scoring / 3600})
    return rows


def run(users: int = 1000, titles: int = 100_000, folder: str | None = None) -> None:
    """Measure and record ``batch_scoring_processes`` and ``batch_scoring_memory``.

    Raises:
        RuntimeError: the merged file is not the one of a single process.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        model_dir, catalogue = make_model(root / "model", n_titles=titles)
        os.environ["MLFLOW_TRACKING_URI"] = register(model_dir, root)
        counts = (users, LARGER * users)
        files = [write_users(root / f"{count}.parquet", catalogue.item_keys, count) for count in counts]
        measured: dict[int, list[dict[str, float]]] = {}
        for processes in PROCESSES:
            for file in files:
                output = root / f"{file.stem}-{processes}"
                output.mkdir()
                measured.setdefault(processes, []).append(score(file, output, processes))
                print(processes, file.stem, measured[processes][-1], file=sys.stderr, flush=True)
                whole = root / f"{file.stem}-1" / "recommendations.parquet"
                if (output / "recommendations.parquet").read_bytes() != whole.read_bytes():
                    raise RuntimeError(f"{processes} processes wrote another file than one")
        many = write_users(root / "many.parquet", catalogue.item_keys, 20 * counts[1])
        read = read_rate(many)
        table = [row_of(processes, counts, measured[processes]) for processes in PROCESSES]
        one, merged = table[0], measured[2][1]["merge_seconds"]
        start = one["start_s"]
        expected = estimate(start, one["users_per_core_s"], read, counts[1] / merged)
    sizes: dict[str, Any] = {
        "titles": titles,
        "users": counts[1],
        "preset": "small",
        "beams": 10,
        "k": 10,
        "batch": BATCH,
    }
    two = table[1]
    record(
        "batch_scoring_processes",
        two["users_s"],
        one["users_s"],
        "users/s",
        1,
        sizes,
        lower_is_better=False,
        reference_is="one process; ours is two, each with one thread",
        note=f"{MANY:,} users on paper: {json.dumps(expected)}; a shard reads {read:,.0f} users/s, merging "
        f"takes {merged:.1f} s",
        command=f"python -m benchmarks.batch_scoring --users {users} --titles {titles}",
        table=table,
    )
    record(
        "batch_scoring_memory",
        measured[1][1]["peak_mb"],
        measured[1][0]["peak_mb"],
        "MB",
        1,
        {"titles": titles, "users": counts[1], "users of the reference": counts[0]},
        reference_is=f"a {LARGER}th of the users",
    )


def row_of(processes: int, counts: Sequence[int], measured: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Rates by the difference of two runs, and what one run costs before it scores."""
    few, many = measured
    cores = min(processes, os.cpu_count() or 1)
    users_s = (counts[1] - counts[0]) / (many["seconds"] - few["seconds"])
    return {
        "processes": processes,
        "users_s": users_s,
        "users_per_core_s": users_s / cores,
        "start_s": many["seconds"] - counts[1] / users_s,
        "peak_mb": many["peak_mb"],
        "peak_mb_few_users": few["peak_mb"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=1000, help=f"and {LARGER} times as many")
    parser.add_argument("--titles", type=int, default=100_000)
    parser.add_argument("--folder", help="for the model and the users (default: a temporary one)")
    given = parser.parse_args()
    run(given.users, given.titles, given.folder)
