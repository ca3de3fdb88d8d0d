"""Part f: result cells side by side: several share the GPU, the processor's cores run small models beside it.

The list has a line a cell, most valuable first: ``gpu|cpu DATASET CELL SEED``; ``#`` begins a comment. A cell
starts when those that it needs are done. Its record is put into ``records.tar`` of the output as soon as it
is there, so that a run cut short keeps what it has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.context import Context
from benchmarks.results.plan import CELLS
from benchmarks.results.records import RECORDS, ROOT, record_path

GPU_SLOTS = 5
RESERVE = 12.0
"""Seconds before the deadline at which what still runs is ended."""


@dataclass(frozen=True)
class Job:
    """One line of the list."""

    kind: str
    dataset: str
    cell: str
    seed: int

    @property
    def name(self) -> str:
        """For logs and tables."""
        return f"{self.dataset}/{self.cell}-s{self.seed}"

    @property
    def needs(self) -> set[str]:
        """Names of the jobs whose models it reads."""
        return {Job(self.kind, self.dataset, cell, self.seed).name for cell in CELLS[self.cell].needs}


def run(context: Context) -> None:
    """Run the list until it is done or the time is up."""
    assert context.cells is not None, "give --cells"
    waiting = read_list(context.cells)
    slots = {"gpu": GPU_SLOTS, "cpu": max(1, (os.cpu_count() or 2) - GPU_SLOTS - 1)}
    if context.toy:
        slots = {"gpu": 1, "cpu": 1}
    place_datasets(context, {job.dataset for job in waiting})
    running: dict[subprocess.Popen, tuple[Job, float]] = {}
    done: set[str] = set()
    failed: set[str] = set()
    while (waiting or running) and time.monotonic() < context.deadline - RESERVE:
        for job in list(waiting):
            if job.needs & failed:
                waiting.remove(job)
                failed.add(job.name)
                continue
            busy = sum(other.kind == job.kind for other, _ in running.values())
            if busy < slots[job.kind] and job.needs <= done:
                waiting.remove(job)
                running[start(context, job)] = (job, time.monotonic())
        for process, (job, begun) in list(running.items()):
            if process.poll() is None:
                continue
            del running[process]
            finish(context, job, time.monotonic() - begun, process.returncode, done, failed)
        time.sleep(0.2)
    for process, (job, begun) in running.items():
        process.kill()
        process.wait()
        context.record("f cells", job.name, state="cut off", seconds=time.monotonic() - begun)
    for job in waiting:
        context.record("f cells", job.name, state="not begun")


def read_list(path: Path) -> list[Job]:
    """The jobs of a list; those that they need and that it does not name come before them."""
    jobs: list[Job] = []

    def add(job: Job) -> None:
        if job.name not in {other.name for other in jobs}:
            for cell in CELLS[job.cell].needs:
                add(Job("cpu" if cell in ("sasrec", "popularity") else job.kind, job.dataset, cell, job.seed))
            jobs.append(job)

    lines = [line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines()]
    listed = {(words[1], words[2], int(words[3])): words[0] for words in lines if words}
    for (dataset, cell, seed), kind in listed.items():
        add(Job(kind, dataset, cell, seed))
    return [Job(listed.get((j.dataset, j.cell, j.seed), j.kind), j.dataset, j.cell, j.seed) for j in jobs]


def place_datasets(context: Context, names: set[str]) -> None:
    """Prepared datasets where the runner looks for them; what is not there it prepares itself."""
    for name in names:
        own = context.work / name / "dataset"
        for source in (name, name.split("-")[0]):
            prepared = None if context.datasets is None else context.datasets / source
            if prepared is not None and prepared.is_dir() and not own.exists():
                own.parent.mkdir(parents=True, exist_ok=True)
                own.symlink_to(prepared.resolve())


def start(context: Context, job: Job) -> subprocess.Popen:
    """One cell in a process of its own, one processor thread each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    if job.kind == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    log = log_of(context, job)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.one_cell", job.dataset, job.cell, str(job.seed)]
    command += ["--work", str(context.work)]
    with log.open("w") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, cwd=ROOT, env=environment)


def finish(context: Context, job: Job, seconds: float, code: int, done: set[str], failed: set[str]) -> None:
    """Note how it ended, and put its record where it is brought back from."""
    record = record_path(job.dataset, job.cell, job.seed)
    if code or not record.is_file():
        failed.add(job.name)
        tail = log_of(context, job).read_text(encoding="utf-8").splitlines()[-3:]
        context.record(
            "f cells", job.name, state=f"failed ({code})", seconds=seconds, note=" | ".join(tail)[-400:]
        )
        return
    done.add(job.name)
    import json

    found = json.loads(record.read_text(encoding="utf-8"))
    context.record(
        "f cells",
        job.name,
        state="done",
        seconds=seconds,
        valid_ndcg_at_10=found["validation"].get("ndcg_at_10"),
        test_ndcg_at_10=found["test"]["ndcg_at_10"],
        test_hr_at_5=found["test"]["hr_at_5"],
    )
    with tarfile.open(context.output / "records.tar", "a") as archive:
        for path in (record, record.with_suffix(".parquet")):
            archive.add(path, arcname=str(path.relative_to(RECORDS)))


def log_of(context: Context, job: Job) -> Path:
    """Of one cell."""
    return context.work / "logs" / f"{job.name.replace('/', '-')}.log"
