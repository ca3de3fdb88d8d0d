"""Run one trial in this process: train by the library's function, rank the split, write the record."""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.controls.records import read_record, record_path, write_ranks
from benchmarks.controls.trials import RATES, TRIALS, TUNED_ON, Trial, tuning_name
from latentrec.training.common.metric_logger import NullMetricLogger

COMMANDS = {
    "sft": ("latentrec.training.latentr3.sft_config:SFTConfig", "latentrec.training.latentr3.sft:train_sft"),
    "title-objective": (
        "latentrec.training.latentr3.title_objective_config:TitleObjectiveConfig",
        "latentrec.training.latentr3.title_objective:train_title_objective",
    ),
    "grpo": (
        "latentrec.training.latentr3.grpo_config:LatentGRPOConfig",
        "latentrec.training.latentr3.grpo:train_grpo",
    ),
    "train-sequential": (
        "latentrec.training.sequential.sequential_config:SequentialConfig",
        "latentrec.training.sequential.train:train_sequential",
    ),
    "rpt": (
        "latentrec.training.sequential.rpt_config:RPTConfig",
        "latentrec.training.sequential.rpt:train_rpt",
    ),
}
"""Command → its configuration and its function, as the command line has them, but without tracking."""


def run_trial(name: str, dataset: str, seed: int, datasets: Path, work: Path, test_log: Path | None) -> dict:
    """Train and evaluate one trial, and write its record; returns it."""
    import torch

    torch.set_num_threads(1)
    trial = TRIALS[name]
    output = model_directory(work, dataset, name, seed)
    parent = None if trial.parent is None else model_directory(work, dataset, trial.parent, seed)
    if trial.reuse:
        assert parent is not None
        output = parent
    started = _clocks()
    means: dict[str, float] = {}
    if not (output / "manifest.json").is_file():
        means = train(trial, datasets / dataset, output, parent, seed)
    trained = _clocks()
    figures, columns = score_trial(trial, datasets / dataset, output)
    evaluated = _clocks()
    if trial.split == "test" and test_log is not None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with test_log.open("a", encoding="utf-8") as stream:
            stream.write(f"{stamp} {dataset} controls/{name} seed {seed}: test split scored\n")
    info = json.loads((output / "model.json").read_text(encoding="utf-8"))
    record = {
        "dataset": dataset,
        "trial": name,
        "seed": seed,
        "split": trial.split,
        "command": " ".join(words_of(trial, "DATASET", "OUTPUT", "PARENT" if trial.parent else None, seed)),
        "config": info["config"],
        "notes": info["notes"],
        "dataset_fingerprint": info["dataset_fingerprint"],
        "training_metrics": info["metrics"],
        "training_means": means,
        "figures": figures,
        "samples": len(columns["title_rank"]),
        "seconds": [round(trained[0] - started[0], 1), round(evaluated[0] - trained[0], 1)],
        "processor_seconds": [round(trained[1] - started[1], 1), round(evaluated[1] - trained[1], 1)],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "machine": machine(),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {package: _version(package) for package in ("torch", "transformers", "trl", "numpy")},
    }
    path = record_path(dataset, name, seed)
    write_ranks(path.with_suffix(".parquet"), columns)
    temporary = path.with_suffix(".writing")
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.move(temporary, path)
    return record


def model_directory(work: Path, dataset: str, name: str, seed: int) -> Path:
    """Where the model of a trial stands."""
    return work / dataset / f"seed{seed}" / name


def words_of(trial: Trial, dataset: str, output: str, parent: str | None, seed: int) -> list[str]:
    """The whole command."""
    words = [str(parent) if word == "{parent}" else word for word in trial.command]
    if trial.objective is not None:
        words += ["--learning-rate", best_rate(trial.objective)]
    if parent is not None and "{parent}" not in trial.command:
        words += ["--model", parent]
    return [*words, "--dataset", dataset, "--output", output, "--seed", str(seed)]


def best_rate(objective: str) -> str:
    """The learning rate whose mean NDCG@10 on validation, over :data:`TUNED_ON`, is highest."""

    def mean(rate: str) -> float:
        records = [read_record(dataset, tuning_name(objective, rate), seed) for dataset, seed in TUNED_ON]
        assert all(records), f"learning rate {rate} of {objective} was not tried"
        return float(np.mean([record["figures"]["ndcg_at_10"] for record in records if record]))

    return max(RATES, key=mean)


class Means(NullMetricLogger):
    """Keeps the mean over training of what a step logs of its policy: why RL moves something, or nothing."""

    KEPT = ("reward", "reward_std_within_group", "groups_with_signal", "entropy")

    def __init__(self) -> None:
        """Begin empty."""
        self._values: dict[str, list[float]] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep those."""
        for name in self.KEPT:
            if f"train/{name}" in metrics:
                self._values.setdefault(name, []).append(float(metrics[f"train/{name}"]))

    def means(self) -> dict[str, float]:
        """Name → mean over what was logged."""
        return {name: float(np.mean(values)) for name, values in self._values.items()}


def train(trial: Trial, dataset: Path, output: Path, parent: Path | None, seed: int) -> dict[str, float]:
    """Run the command's function; returns the :class:`Means`."""
    from latentrec.core import add_config_arguments, config_from_namespace

    config_class, function = (_named(name) for name in COMMANDS[trial.command[0]])
    parser = argparse.ArgumentParser()
    for flag in ("--dataset", "--output", "--model", "--init-from"):
        parser.add_argument(flag)
    add_config_arguments(parser, config_class)
    words = words_of(trial, str(dataset), str(output), None if parent is None else str(parent), seed)
    arguments = parser.parse_args(words[1:])
    more = {
        name: getattr(arguments, name)
        for name in ("model", "init_from")
        if getattr(arguments, name) is not None
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    logger = Means()
    config = config_from_namespace(config_class, arguments)
    function(config, dataset=arguments.dataset, output=output, metric_logger=logger, **more)
    return logger.means()


def score_trial(trial: Trial, dataset: Path, model: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Figures and ranks on the trial's split: with the model's own latents, and with another user's."""
    from latentrec.catalog import Catalogue
    from latentrec.data import Dataset
    from latentrec.decoding import DecodingOptions, load_recommender
    from latentrec.evaluation.ranking.other_latents import other_latents
    from latentrec.evaluation.ranking.scoring import score_model

    data = Dataset(dataset)
    catalogue = Catalogue.from_dataset(data)
    samples = data.split(trial.split)
    options = DecodingOptions(decoding="catalogue", exclude_history=False)
    recommender: Any = load_recommender(model, catalogue, options)
    columns = {"user_id": samples.user_ids.astype(np.int32)}
    figures: dict[str, float] = {}
    if hasattr(getattr(recommender, "encoder", None), "depth"):
        figures |= _by_depth(recommender, samples, catalogue)
    for reading in ("own", *trial.readings):
        suffix = "" if reading == "own" else f"_{reading}"
        with nullcontext() if reading == "own" else other_latents(recommender, reading):
            scores = score_model(recommender, samples, catalogue)
        columns[f"title_rank{suffix}"] = np.minimum(scores.title_ranks, 255).astype(np.uint8)
        for metric in ("hr_at_5", "ndcg_at_10"):
            figures[f"{metric}{suffix}"] = float(scores.values(metric).mean())
        if reading == "own":
            columns["item_rank"] = np.minimum(scores.item_ranks, 255).astype(np.uint8)
    return figures, columns


DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16)


def _by_depth(recommender: Any, samples: Any, catalogue: Any) -> dict[str, float]:
    """NDCG@10 and seconds by number of recurrent steps, as LARES' paper draws it."""
    from latentrec.evaluation.ranking.scoring import score_model

    encoder, figures = recommender.encoder, {}
    trained = encoder.depth
    for depth in DEPTHS:
        encoder.depth = depth
        scores = score_model(recommender, samples, catalogue)
        figures[f"ndcg_at_10_depth_{depth}"] = float(scores.values("ndcg_at_10").mean())
        figures[f"seconds_depth_{depth}"] = scores.seconds
    encoder.depth = trained
    return figures


def machine() -> str:
    """Processor and cores, for people."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"


def serve(connection: Any, log: str) -> None:
    """Run the trials that arrive, one after another, until ``None``; for a process of its own."""
    logging.basicConfig(filename=log, level=logging.INFO)
    with open(log, "a", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    connection.send(("ready", None))
    while (task := connection.recv()) is not None:
        try:
            record = run_trial(*task)
            connection.send(("done", {"figures": record["figures"], "seconds": record["seconds"]}))
        except Exception as error:
            logging.exception("trial %s failed", task)
            connection.send(("failed", f"{type(error).__name__}: {error}"))


def _named(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _clocks() -> tuple[float, float]:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), own.ru_utime + own.ru_stime
