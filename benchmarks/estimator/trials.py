"""Trainings of stage 2 with one thing changed at a time: what each did to reward and validation."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results.score_models import draw
from latentrec.catalog import Catalogue
from latentrec.data import Dataset
from latentrec.decoding import DecodingOptions, load_recommender
from latentrec.evaluation.ranking.scoring import score_model
from latentrec.training.latentr3.grpo import train_grpo
from latentrec.training.latentr3.grpo_config import LatentGRPOConfig

COMMON: dict[str, Any] = {
    "max_steps": 120,
    "eval_steps": 40,
    "validation_samples": 400,
    "ranking_samples": 0,
    "logging_steps": 10,
    "diagnostics_every": 10,
    "load_best_model_at_end": False,
    "epsilon_high": 0.28,
}
SCORE_FUNCTION: dict[str, Any] = {
    "estimator": "gaussian",
    "reward": "nll",
    "advantage": "own",
    "noise": "relative",
    "noise_std": 0.1,
    "learning_rate": 3e-4,
}
TRIALS: dict[str, dict[str, Any]] = {
    "score function": SCORE_FUNCTION,
    "lr 1e-3": SCORE_FUNCTION | {"learning_rate": 1e-3},
    "lr 3e-3": SCORE_FUNCTION | {"learning_rate": 3e-3},
    "sigma 0.3, lr 1e-3": SCORE_FUNCTION | {"noise_std": 0.3, "learning_rate": 1e-3},
    "group baseline, lr 1e-3": SCORE_FUNCTION | {"advantage": "group", "learning_rate": 1e-3},
    "NDCG reward, group baseline, lr 1e-3": SCORE_FUNCTION
    | {"reward": "ndcg", "advantage": "group", "learning_rate": 1e-3, "max_steps": 30, "eval_steps": 10},
    "target likelihood, nll, own": SCORE_FUNCTION | {"estimator": "target_likelihood"},
    "target likelihood, nll, own, lr 1e-3": SCORE_FUNCTION
    | {"estimator": "target_likelihood", "learning_rate": 1e-3},
    "published": {
        "profile": "paper",
        "advantage_batch": "optimizer",
        "warmup_steps": 20,
        "learning_rate": 1e-4,
    },
    "published, lr 1e-3": {
        "profile": "paper",
        "advantage_batch": "optimizer",
        "warmup_steps": 20,
        "learning_rate": 1e-3,
    },
}
"""All end with their last weights, so that harm shows; the default profile keeps the best."""
DRAWN = 300
SERIES = (
    "train/reward",
    "train/reward_clean",
    "train/cosine_with_sft",
    "train/cosine_with_reward",
    "valid/loss",
)


class _Recorder:
    def __init__(self) -> None:
        self.series: dict[str, list[list[float]]] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        for name in SERIES:
            if name in metrics:
                self.series.setdefault(name, []).append([step, round(float(metrics[name]), 5)])

    def log_params(self, params: Any) -> None:
        """Configurations stand in the record."""

    def log_artifact(self, path: Any) -> None:
        """Nothing is kept."""


def run_trial(name: str, *, dataset: Path, model: Path, label: str, output: Path, seed: int) -> bool:
    """Train one trial from a stage-1 model and write its record, unless it is there.

    Args:
        name: a key of :data:`TRIALS`.
        dataset, model: as for ``latentrec grpo``.
        label: of dataset and seed, for tables and files.
        output: folder of the records.
        seed: of order and noise.
    """
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    path = output / f"{label}-{slug}.json"
    if path.is_file():
        return False
    scratch = output.parent / f".{label}-{slug}.{os.getpid()}"
    before = _clock()
    recorder = _Recorder()
    options = COMMON | TRIALS[name] | {"seed": seed}
    try:
        train_grpo(
            LatentGRPOConfig(**options), dataset=dataset, model=model, output=scratch, metric_logger=recorder
        )
        spent = _clock() - before
        after = ranking(dataset, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    record = {
        "trial": name,
        "on": label,
        "options": options,
        "processor_seconds": round(spent, 1),
        "ndcg_at_10": after,
        "series": recorder.series,
    }
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return True


def ranking(dataset: Path, model: Path) -> float:
    """NDCG@10 on a seeded draw of the validation split."""
    data = Dataset(dataset)
    catalogue = Catalogue.from_dataset(data)
    recommender = load_recommender(model, catalogue, DecodingOptions(decoding="bigrec"))
    scores = score_model(recommender, draw(data.split("valid"), DRAWN), catalogue)
    return round(float(scores.values("ndcg_at_10").mean()), 5)


def _clock() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
