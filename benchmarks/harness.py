"""Measurements go through here: two sides in turns, medians, and the files that people read.

``results.json`` is the contract (name → ours, reference, ratio, unit, repeats, device, sizes); ``RESULTS.md``
is generated from it. A later measurement of the same name replaces the earlier one.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS_JSON = Path(__file__).with_name("results.json")
RESULTS_MD = Path(__file__).with_name("RESULTS.md")
VERSIONS = ("torch", "transformers", "trl", "pyarrow", "numpy")


def record(
    name: str,
    ours: float,
    reference: float,
    unit: str,
    repeats: int,
    sizes: Mapping[str, Any],
    *,
    lower_is_better: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """Put one measurement into ``results.json`` and rewrite ``RESULTS.md``.

    Args:
        name: key of the result in results.json.
        ours, reference: medians in ``unit``, measured in turns on this machine.
        repeats: how often each side was measured.
        sizes: what was measured (model, batch, data).
        lower_is_better: times and memory; ``False`` for throughput. ``ratio`` is above 1 when ours is better.
        more: anything else worth keeping (what the reference is, all figures, a note).

    Returns:
        The entry.
    """
    ratio = reference / ours if lower_is_better else ours / reference
    return record_entry(
        name,
        {
            "ours": ours,
            "reference": reference,
            "ratio": ratio,
            "unit": unit,
            "repeats": repeats,
            "sizes": dict(sizes),
            **more,
        },
    )


def record_entry(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Put a finished entry into ``results.json``; device, versions and date are added where absent."""
    complete = {"device": device(), "versions": versions(), "measured": _today(), **entry}
    folder = os.open(RESULTS_JSON.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        results = read_results() | {name: complete}
        RESULTS_JSON.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        RESULTS_MD.write_text(as_markdown(results), encoding="utf-8")
    finally:
        os.close(folder)
    print(
        f"{name}: ours {_short(entry['ours'])} {entry['unit']}, reference {_short(entry['reference'])}, ",
        end="",
    )
    print(f"ratio {entry['ratio']:.2f}", flush=True)
    return complete


def read_results() -> dict[str, Any]:
    """Every measurement so far."""
    return json.loads(RESULTS_JSON.read_text(encoding="utf-8")) if RESULTS_JSON.exists() else {}


def in_turns(
    sides: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each side, measured alternately, after ``warm_up`` unmeasured rounds.

    ``clock`` is the wall by default; ``time.process_time`` counts this process's own processor seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(warm_up + repeats):
        for name, work in sides.items():
            start = clock()
            work()
            if round_ >= warm_up:
                seconds[name].append(clock() - start)
    return seconds


def medians(measured: Mapping[str, list[float]]) -> dict[str, float]:
    """Median of each side."""
    return {name: statistics.median(values) for name, values in measured.items()}


def device() -> str:
    """The machine in words: accelerator where torch sees one, else processor and cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    model = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        names = [line.partition(":")[2] for line in cpu_info.read_text().splitlines() if "model name" in line]
        model = names[0].strip() if names else model
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of what the measurement stands on, and the commit."""
    found = {"python": platform.python_version()}
    for package in VERSIONS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS_JSON.parent
    )
    if commit.returncode == 0:
        found["commit"] = commit.stdout.strip()
    return found


def as_markdown(results: Mapping[str, Any]) -> str:
    """``RESULTS.md``: one table, then what each measurement was."""
    lines = [
        "# Benchmarks",
        "",
        "Generated from `results.json` by `make bench`; ratio above 1 means that ours is better. Both sides",
        "run in turns in one process tree on one machine; figures are medians.",
        "",
        "| benchmark | ours | reference | unit | ratio | repeats |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in sorted(results.items()):
        lines.append(
            f"| `{name}` | {_short(entry['ours'])} | {_short(entry['reference'])} | {entry['unit']} "
            f"| **{entry['ratio']:.2f}** | {entry['repeats']} |"
        )
    for name, entry in sorted(results.items()):
        sizes = ", ".join(f"{key} {_words(value)}" for key, value in entry["sizes"].items())
        lines += ["", f"## {name}", "", f"- sizes: {sizes}", f"- device: {entry['device']}"]
        if "versions" in entry:
            lines.append("- versions: " + ", ".join(f"{k} {v}" for k, v in entry["versions"].items()))
        for key in ("reference_is", "note", "command", "clock", "measured"):
            if key in entry:
                lines.append(f"- {key.replace('_', ' ')}: {entry[key]}")
        if isinstance(entry.get("table"), list) and entry["table"]:
            columns = list(entry["table"][0])
            lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
            for row in entry["table"]:
                lines.append("| " + " | ".join(_words(row[column]) for column in columns) + " |")
    return "\n".join(lines) + "\n"


def _words(value: Any) -> str:
    if isinstance(value, float):
        return _short(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")
