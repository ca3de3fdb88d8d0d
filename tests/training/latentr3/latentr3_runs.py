"""Small LatentR³ trainings for tests: a dataset, both stages, and what their figures were."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from latentrec.training.common.metric_logger import NO_METRICS
from latentrec.training.latentr3.grpo import train_grpo
from latentrec.training.latentr3.grpo_config import LatentGRPOConfig
from latentrec.training.latentr3.sft import train_sft
from latentrec.training.latentr3.sft_config import SFTConfig
from latentrec.training.latentr3.title_objective import train_title_objective
from latentrec.training.latentr3.title_objective_config import TitleObjectiveConfig

SFT = {
    "backbone": "micro",
    "num_train_epochs": 2,
    "batch_size": 32,
    "learning_rate": 6e-3,
    "warmup_steps": 2,
    "validation_samples": 40,
    "ranking_samples": 20,
    "save_steps": 2,
    "logging_steps": 1,
}
GRPO = {
    "estimator": "gaussian",
    "batch_size": 64,
    "num_generations": 4,
    "max_steps": 8,
    "eval_steps": 4,
    "validation_samples": 40,
    "ranking_samples": 20,
    "save_steps": 2,
    "logging_steps": 1,
    "diagnostics_every": 3,
    "load_best_model_at_end": False,
}


TITLES = {
    **{name: value for name, value in GRPO.items() if name not in ("estimator", "num_generations")},
    "batch_size": 16,
}
del TITLES["diagnostics_every"]


class Recorder:
    """A metric metric_logger that keeps everything, and may do something at a step."""

    def __init__(self, at_step=None, do=None):
        self.metrics: list[tuple[int, dict]] = []
        self._at_step, self._do = at_step, do

    def log_metrics(self, metrics, step):
        self.metrics.append((step, dict(metrics)))
        if self._do is not None and step == self._at_step and "train/loss" in metrics:
            self._do()

    def log_params(self, params):
        pass

    def log_artifact(self, path):
        pass

    def series(self, name: str) -> dict[int, float]:
        return {step: metrics[name] for step, metrics in self.metrics if name in metrics}


def sft(dataset: Path, output: Path, metric_logger=NO_METRICS, root=None, init_from=None, **options):
    return train_sft(
        SFTConfig(**(SFT | options)),
        dataset=dataset,
        output=output,
        init_from=init_from,
        metric_logger=metric_logger,
        checkpoint_root=root,
    )


def grpo(dataset: Path, model: Path, output: Path, metric_logger=NO_METRICS, root=None, **options):
    config = LatentGRPOConfig(**(GRPO | options))
    return train_grpo(
        config, dataset=dataset, model=model, output=output, metric_logger=metric_logger, checkpoint_root=root
    )


def titles(dataset: Path, model: Path, output: Path, metric_logger=NO_METRICS, root=None, **options):
    config = TitleObjectiveConfig(**(TITLES | options))
    return train_title_objective(
        config, dataset=dataset, model=model, output=output, metric_logger=metric_logger, checkpoint_root=root
    )


def weights(model_dir: Path) -> dict[str, torch.Tensor]:
    found = dict(load_file(model_dir / "backbone" / "model.safetensors"))
    extra = model_dir / "latent_ratt.safetensors"
    return found | ({f"ratt.{k}": v for k, v in load_file(extra).items()} if extra.exists() else {})


def same_weights(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def weight_difference(a: Path, b: Path) -> tuple[float, float]:
    """Largest and mean absolute difference."""
    first, second = weights(a), weights(b)
    gaps = torch.cat([(first[name] - second[name]).abs().flatten() for name in first])
    return float(gaps.max()), float(gaps.mean())
