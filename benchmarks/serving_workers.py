"""Serving processes behind one port: requests a second, latency and memory with 1, 2 and 4 of them.

`mlflow models serve --workers N`, one thread a process, asked over HTTP by the clients of
:mod:`benchmarks.serving`. What more processes bring is bounded by the cores of the machine, which the clients
share; pods on nodes of their own have no such bound.

    python -m benchmarks.serving_workers --seconds 20
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import record
from benchmarks.serving import (
    CLIENTS,
    N_TITLES,
    Load,
    drive,
    make_model,
    register,
    scoring_server,
    some_histories,
)

WORKERS = (1, 2, 4)


def run(seconds: float = 20) -> None:
    """Measure and record ``serving_workers``."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    table = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model_dir, catalogue = make_model(root / "model")
        histories = some_histories(catalogue)
        tracking_uri = register(model_dir, root)
        for workers in WORKERS:
            with scoring_server("models:/bench@champion", tracking_uri, root, workers) as (port, pid):
                drive(port, histories, max(3.0, seconds / 4), pid)  # until every worker has loaded the model
                table.append(row_of(workers, drive(port, histories, seconds, pid)))
    record(
        "serving_workers",
        table[1]["requests_s"],
        table[0]["requests_s"],
        "requests/s",
        1,
        {"clients": CLIENTS, "titles": N_TITLES, "preset": "small", "k": 10, "beams": 10},
        lower_is_better=False,
        reference_is="one process; ours is two behind the same port, each with one thread",
        command=f"python -m benchmarks.serving_workers --seconds {seconds:g}",
        table=table,
    )


def row_of(workers: int, load: Load) -> dict[str, Any]:
    """One row of the table.

    Raises:
        RuntimeError: a request failed.
    """
    if load.errors:
        raise RuntimeError(f"{len(load.errors)} requests failed with {workers} workers: {load.errors[0]}")
    return {
        "workers": workers,
        "requests_s": load.per_second,
        "p50_ms": load.percentile(50),
        "p99_ms": load.percentile(99),
        "memory_mb": load.memory_mb[-1][1],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20, help="of each number of processes")
    run(parser.parse_args().seconds)
