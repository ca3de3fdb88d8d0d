"""Run the cells that have no record yet, each by the commands that a user would type."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.results.cell import Cell
from benchmarks.results.command import call
from benchmarks.results.datasets import DATASETS, DatasetPlan
from benchmarks.results.plan import CELLS
from benchmarks.results.pretrained import write_backbone
from benchmarks.results.records import RECORDS, record_path
from benchmarks.results.score_models import score_models
from latentrec.core import UserError
from latentrec.storage import read_manifest

TEST_LOG = RECORDS / "test-split.log"
RANK_CUT = 255


class Runner:
    """Makes datasets, models and records under ``work`` and ``docs/results``.

    Args:
        data_root: folder with ``amazon2018/…`` (see ``docs/results.md``).
        work: datasets, model directories, checkpoints and logs; not committed.
    """

    def __init__(self, data_root: Path, work: Path):
        """Remember the places.

        Raises:
            UserError: the data root is not there.
        """
        if not data_root.is_dir():
            raise UserError(f"{data_root}: no such folder; give the data with RESULTS_DATA=DIR")
        self.data_root, self.work = data_root, work

    def run(self, dataset: str, cell: str, seed: int) -> bool:
        """Run one cell unless its record exists, and what it needs before it. Says whether it ran."""
        path = record_path(dataset, cell, seed)
        if path.exists():
            return False
        for needed in CELLS[cell].needs:
            self.run(dataset, needed, seed)
        plan = DATASETS[dataset]
        data = self._dataset(plan)
        trained = self._train(plan, CELLS[cell], data, seed) if CELLS[cell].command else (0.0, 0.0)
        models = {name: self._model(dataset, name, seed) for name in (cell, *CELLS[cell].needs)}
        models = {name: directory for name, directory in models.items() if directory.is_dir()}
        started = _clocks()
        verdict = score_models(
            CELLS[cell],
            data,
            models,
            validation_samples=plan.validation_samples,
            test_samples=plan.test_samples,
            dtype=plan.dtype,
        )
        evaluated = [now - then for now, then in zip(_clocks(), started, strict=True)]
        _log_test_use(dataset, cell, seed)
        directory = models[CELLS[cell].model or cell]
        model_json = json.loads((directory / "model.json").read_text(encoding="utf-8"))
        record: dict[str, Any] = {
            "dataset": dataset,
            "cell": cell,
            "seed": seed,
            "dataset_fingerprint": read_manifest(data, verify=False).fingerprint,
            "model_fingerprint": read_manifest(directory, verify=False).fingerprint,
            "command": " ".join(self._command(plan, CELLS[cell], "DATASET", "OUTPUT", seed, shown=True)),
            "config": without_places(model_json["config"]),
            "training_metrics": model_json["metrics"],
            "curve": read_manifest(directory, verify=False).extra.get("evaluations", []),
            "validation": verdict.validation,
            "alpha": verdict.alpha,
            "alphas_on_validation": verdict.alphas,
            "test": {
                name: float(verdict.test.values(name).mean())
                for name in (
                    "hr_at_5",
                    "ndcg_at_5",
                    "hr_at_10",
                    "ndcg_at_10",
                    "item_hr_at_5",
                    "item_ndcg_at_10",
                )
            },
            "test_samples": len(verdict.test.title_ranks),
            "seconds": {"train": round(trained[0], 1), "judge": round(evaluated[0], 1)},
            "processor_seconds": {"train": round(trained[1], 1), "judge": round(evaluated[1], 1)},
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine(),
            "versions": {name: version(name) for name in ("torch", "transformers", "trl", "numpy")},
        }
        _write_record(path, record, verdict.test, verdict.test_users)
        return True

    def _dataset(self, plan: DatasetPlan) -> Path:
        output = self.work / plan.name / "dataset"
        if not (output / "manifest.json").is_file():
            sources = ["--reviews", str(self.data_root / plan.reviews)]
            sources += ["--metadata", str(self.data_root / plan.metadata)]
            self._call(["data-prep", *sources, "--output", str(output), *plan.flags], plan.name, "data-prep")
        return output

    def _model(self, dataset: str, cell: str, seed: int) -> Path:
        return self.work / dataset / f"seed{seed}" / cell

    def _train(self, plan: DatasetPlan, cell: Cell, data: Path, seed: int) -> tuple[float, float]:
        """Train unless it was done; wall and processor seconds, of the call that finished it."""
        output = self._model(plan.name, cell.name, seed)
        timing = output.with_name(f"{cell.name}.seconds")
        if not (output / "manifest.json").is_file():
            command = self._command(plan, cell, str(data), str(output), seed)
            started = _clocks()
            self._call(command, plan.name, f"{cell.name}-s{seed}")
            spent = [now - then for now, then in zip(_clocks(), started, strict=True)]
            timing.write_text(json.dumps(spent), encoding="utf-8")
        wall, processor = json.loads(timing.read_text(encoding="utf-8")) if timing.is_file() else (0.0, 0.0)
        return wall, processor

    def _command(
        self, plan: DatasetPlan, cell: Cell, data: str, output: str, seed: int, *, shown: bool = False
    ) -> list[str]:
        words = []
        for word in cell.command:
            if word.startswith("{model:"):
                name = word[len("{model:") : -1]
                words.append(name.upper() if shown else str(self._model(plan.name, name, seed)))
            else:
                words.append(word.replace("{backbone}", plan.backbone))
            wide = word == "{wide}"
            if wide or (word == "{backbone}" and plan.title_epochs):
                words[-1] = "WIDE_BACKBONE" if wide else "BACKBONE"
                if not shown:
                    place = self._model(plan.name, f"backbone{'-wide' if wide else ''}", seed)
                    write_backbone(
                        Path(data), plan.backbone, seed, place, epochs=plan.title_epochs, wide=wide
                    )
                    words[-1] = str(place)
        if not words:
            return []
        states_range = bool({"--train-from", "--train-to"} & set(words))
        words[1:1] = [
            *plan.limits.get(words[0], ()),
            *(() if states_range else plan.newest.get(words[0], ())),
        ]
        return [*words, "--dataset", data, "--output", output, "--seed", str(seed)]

    def _call(self, arguments: list[str], dataset: str, log: str) -> None:
        """Run ``latentrec ARGUMENTS`` in a process of its own, its output in a log.

        Raises:
            UserError: it failed; the last lines of its log are in the message.
        """
        path = self.work / dataset / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        if arguments[0] in ("sft", "grpo", "title-objective", "train-sequential", "rpt"):
            arguments = [*arguments, "--checkpoint-root", str(self.work / "checkpoints")]
        print(f"{dataset}: latentrec {' '.join(arguments)}", file=sys.stderr, flush=True)
        with path.open("w", encoding="utf-8") as stream:
            code = call(arguments, stream)
        if code:
            tail = "\n".join(path.read_text(encoding="utf-8").splitlines()[-8:])
            raise UserError(f"latentrec {arguments[0]} exited with {code} (log: {path}):\n{tail}")


def _clocks() -> tuple[float, float]:
    """Wall seconds, and processor seconds of this process and of the commands that it has called."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    called = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), own.ru_utime + own.ru_stime + called.ru_utime + called.ru_stime


def machine() -> str:
    """Processor, cores and memory, for people."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {gigabytes:.0f} GiB"


def _write_record(path: Path, record: dict[str, Any], scores: Any, users: np.ndarray) -> None:
    """Ranks first, the record last: a record that exists is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "user_id": pa.array(users.astype(np.int32)),
            "title_rank": pa.array(np.minimum(scores.title_ranks, RANK_CUT).astype(np.uint8)),
            "item_rank": pa.array(np.minimum(scores.item_ranks, RANK_CUT).astype(np.uint8)),
        }
    )
    pq.write_table(table, path.with_suffix(".parquet"), compression="zstd")
    temporary = path.with_suffix(".writing")
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.move(temporary, path)


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration for a committed record: of an absolute path only the last name stays."""
    return {
        name: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for name, value in config.items()
    }


def _log_test_use(dataset: str, cell: str, seed: int) -> None:
    RECORDS.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with TEST_LOG.open("a", encoding="utf-8") as stream:
        stream.write(f"{stamp} {dataset} {cell} seed {seed}: test split scored\n")
