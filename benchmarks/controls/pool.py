"""Many trials at a time: a queue in order of worth, workers of one thread each, some of them with the GPU."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.controls.records import record_path
from benchmarks.controls.trials import RATES, TRIALS, TUNED_ON, tuning_name
from benchmarks.controls.worker import model_directory, serve

LARGE = ("games-confirm",)
"""Datasets whose title models take a core more than ten minutes."""
Key = tuple[str, str, int]
"""Dataset, trial, seed."""


@dataclass
class _Worker:
    process: Any
    connection: Any
    gpu: bool
    task: Key | None = None
    ready: bool = False


def read_queue(path: Path) -> list[Key]:
    """Lines ``dataset trial seed[,seed…]``, most valuable first; ``#`` begins a comment."""
    keys = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if words := line.split("#")[0].split():
            keys += [(words[0], words[1], int(seed)) for seed in words[2].split(",")]
    return keys


def with_needed(keys: Iterable[Key], is_done: Callable[[Key], bool]) -> list[Key]:
    """What is left of the queue, with what each trial needs before it; no trial twice, none that is done."""
    order: dict[Key, None] = {}

    def add(key: Key) -> None:
        if is_done(key):
            return
        for needed in _parents(key):
            add(needed)
        for needed in _tuning(key):
            if not record_path(*needed).exists():
                add(needed)
        order.setdefault(key)

    for key in keys:
        add(key)
    return list(order)


def _parents(key: Key) -> list[Key]:
    parent = TRIALS[key[1]].parent
    return [] if parent is None else [(key[0], parent, key[2])]


def _tuning(key: Key) -> list[Key]:
    """Trials that choose the learning rate of this one."""
    objective = TRIALS[key[1]].objective
    if objective is None:
        return []
    return [(dataset, tuning_name(objective, rate), seed) for dataset, seed in TUNED_ON for rate in RATES]


def run_queue(
    keys: list[Key], *, datasets: Path, work: Path, jobs: int, gpu_jobs: int, minutes: float, test_log: Path
) -> list[str]:
    """Run what has no record yet; starts nothing after ``minutes``, and waits for nothing then.

    Returns:
        A line for each trial that ended.
    """
    begin = time.monotonic()
    waiting = with_needed(keys, lambda key: _is_done(key, work))
    workers = [_start(work, index, gpu=index < gpu_jobs) for index in range(jobs + gpu_jobs)]
    lines: list[str] = []
    running: set[Key] = set()
    try:
        while (waiting or running) and time.monotonic() - begin < 60 * minutes:
            for worker in workers:
                if worker.ready and worker.task is None:
                    worker.task = _next(waiting, worker.gpu, gpu_jobs > 0, work)
                    if worker.task is not None:
                        running.add(worker.task)
                        dataset, name, seed = worker.task
                        worker.connection.send((name, dataset, seed, datasets, work, test_log))
            ready = multiprocessing.connection.wait([one.connection for one in workers], timeout=1.0)
            for worker in [one for one in workers if one.connection in ready]:
                kind, news = worker.connection.recv()
                if kind == "ready":
                    worker.ready = True
                    continue
                assert worker.task is not None
                running.discard(worker.task)
                where = "gpu" if worker.gpu else "cpu"
                lines.append(f"{time.monotonic() - begin:5.0f} s {where} {kind} {worker.task} {news}")
                print(lines[-1], flush=True)
                worker.task = None
            if not running and not any(_may_run(key, work) for key in waiting):
                break
    finally:
        for worker in workers:
            worker.process.terminate()
    return lines


def _is_done(key: Key, work: Path) -> bool:
    dataset, name, seed = key
    return record_path(*key).exists() and (
        (model_directory(work, dataset, name, seed) / "manifest.json").is_file()
        or not any(trial.parent == name for trial in TRIALS.values())
    )


def _may_run(key: Key, work: Path) -> bool:
    """Whether its parent's model is there (its record may follow), and its learning rate is chosen."""
    models = [model_directory(work, dataset, name, seed) for dataset, name, seed in _parents(key)]
    return all((model / "manifest.json").is_file() for model in models) and all(
        record_path(*needed).exists() for needed in _tuning(key)
    )


def _next(waiting: list[Key], on_gpu: bool, has_gpu: bool, work: Path) -> Key | None:
    """The first trial that can begin on this worker; GPU workers take GPU trials first."""
    able = [key for key in waiting if _may_run(key, work)]
    if on_gpu:
        able.sort(key=lambda key: not _wants_gpu(key))
    elif has_gpu:
        able = [key for key in able if not _wants_gpu(key)]
    if not able:
        return None
    waiting.remove(able[0])
    return able[0]


def _wants_gpu(key: Key) -> bool:
    return TRIALS[key[1]].gpu or key[0] in LARGE


def _start(work: Path, index: int, *, gpu: bool) -> _Worker:
    work.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    settings = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if not gpu:
        settings["CUDA_VISIBLE_DEVICES"] = ""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        process = context.Process(target=serve, args=(theirs, str(work / f"worker{index}.log")), daemon=True)
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return _Worker(process, ours, gpu)
