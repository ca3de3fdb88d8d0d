"""What every part of the GPU benchmark is given: device, sizes, clock, and the place of its records."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

DATASHEET_TFLOPS = {"H100": 989.4, "H200": 989.4, "A100": 312.0, "L4": 121.0, "T4": 65.0}
"""Dense bf16 (T4: fp16) matrix rate by the vendor's datasheets; what MFU is a share of."""


@dataclass
class Context:
    """One run of the benchmark.

    Attributes:
        device: ``cuda`` or ``cpu``.
        toy: sizes that two processor cores finish in seconds.
        output: folder of ``records.jsonl`` and logs.
        deadline: monotonic time at which no further measurement is begun.
        datasets: folder of prepared dataset directories (``office``, …), where there is one.
        model: a backbone for the parts that use real weights.
        cells, work: of part f, the list of cells and the folder of their models.
        rows: what was recorded so far.
    """

    device: str
    toy: bool
    output: Path
    deadline: float
    datasets: Path | None = None
    model: str | None = None
    cells: Path | None = None
    work: Path = Path("runs/gpu-work")
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def card(self) -> str:
        """The accelerator by name."""
        return torch.cuda.get_device_name(0) if self.device == "cuda" else "CPU"

    @property
    def peak_flops(self) -> float:
        """Datasheet rate of the card, FLOP/s; NaN where it is not known."""
        known = [rate for name, rate in DATASHEET_TFLOPS.items() if name in self.card]
        return known[0] * 1e12 if known else float("nan")

    def has_time(self, seconds: float) -> bool:
        """Whether this much time is left."""
        return time.monotonic() + seconds < self.deadline

    def record(self, part: str, name: str, **figures: Any) -> None:
        """Keep one line of the table; it is on disk before the next measurement begins."""
        row = {"part": part, "name": name, "device": self.card, **figures}
        self.rows.append(row)
        with (self.output / "records.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(
            f"{part} {name}: " + ", ".join(f"{key} {short(value)}" for key, value in figures.items()),
            flush=True,
        )

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], *, repeats: int, warm_up: int = 2) -> float:
        """Median wall seconds of ``work``, kernels included."""
        found = []
        for round_ in range(warm_up + repeats):
            self.synchronize()
            begin = time.perf_counter()
            work()
            self.synchronize()
            if round_ >= warm_up:
                found.append(time.perf_counter() - begin)
        return statistics.median(found)

    def peak_gb(self, work: Callable[[], Any]) -> float:
        """Device memory that ``work`` takes at its peak above what stands before it, GB; NaN on a CPU."""
        if self.device != "cuda":
            work()
            return float("nan")
        self.clear()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**30

    def clear(self) -> None:
        """Give back what nobody holds any more."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()


def short(value: Any) -> str:
    """A figure in few digits."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def as_table(rows: list[dict[str, Any]]) -> str:
    """All records as Markdown tables, one a part (its columns are the keys of its rows)."""
    lines: list[str] = []
    for part in dict.fromkeys(row["part"] for row in rows):
        own = [
            {k: v for k, v in row.items() if k not in ("part", "device")}
            for row in rows
            if row["part"] == part
        ]
        columns = list(dict.fromkeys(key for row in own for key in row))
        lines += ["", f"### {part} ({rows[0]['device']})", "", "| " + " | ".join(columns) + " |"]
        lines.append("|" + "---|" * len(columns))
        lines += ["| " + " | ".join(short(row.get(column, "")) for column in columns) + " |" for row in own]
    return "\n".join(lines)
