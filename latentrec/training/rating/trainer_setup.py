"""What the three rating trainers share: trainer arguments, the training run, prompts, the model directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from latentrec.catalog import ITEMS_FILE
from latentrec.data.dataset import Dataset
from latentrec.models.model_directory import ModelInfo
from latentrec.models.rating.text_predictor import (
    LoadedModel,
    RatingPrediction,
    TextRatingPredictor,
    save_language_model,
)
from latentrec.prompts.rating_examples import RatingExample
from latentrec.prompts.rating_prompt import INSTRUCT_SETTINGS, RatingPromptSettings
from latentrec.storage import ArtifactWriter
from latentrec.training.common.checkpointing import Checkpoints, Interruption
from latentrec.training.common.metric_logger import MetricLogger
from latentrec.training.common.sharding import DDP, is_sharded, sharding_options
from latentrec.training.common.trainer_arguments import common_options
from latentrec.training.rating.rewards import RatingReward


def prompt_settings(loaded: LoadedModel, overrides: Mapping[str, Any]) -> RatingPromptSettings:
    """The prompt's settings: the model's own, else those for instruct models, updated by ``overrides``."""
    settings = loaded.settings or INSTRUCT_SETTINGS
    return replace(settings, **{name: value for name, value in overrides.items() if value is not None})


def trainer_settings(output_dir: str, *, seed: int, model: Any = None, sharding: str = DDP) -> dict[str, Any]:
    """Arguments that all transformers trainers of the rating family share; ``model`` is shared out so."""
    settings = {**common_options(output_dir, seed), "logging_steps": 1, "data_seed": seed}
    if sharding == DDP:
        return settings
    return settings | sharding_options(sharding, type(model.get_decoder().layers[0]))


def train(
    trainer: Any,
    checkpoints: Checkpoints,
    metric_logger: MetricLogger,
    *,
    save_steps: int | None,
    metric_names: Mapping[str, str],
    label: str,
) -> list[dict[str, float]]:
    """Run a resumable trainer to its end, or until a signal; returns its training curve.

    Args:
        trainer: a transformers or trl trainer with
            :class:`~latentrec.training.common.resumable_trainer.ResumableTrainerMixin` before it.
        checkpoints: where to save and resume from.
        metric_logger: where metrics go.
        save_steps: optimizer steps between two checkpoints.
        metric_names: trainer's name → ours; others are dropped.
        label: of the progress bar.

    Raises:
        Interrupted: a signal came; the state was saved.
        TrainingDiverged: loss or gradient is not finite.
    """
    from datasets import disable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    disable_progress_bars()
    with Interruption() as interruption:
        trainer.configure(
            checkpoints=checkpoints,
            metric_logger=metric_logger,
            interruption=interruption,
            save_steps=save_steps or trainer.args.max_steps,
            label=label,
            metric_names=metric_names,
        )
        trainer.run()
    return trainer.training_curve()


def trained_model(trainer: Any, reload: Callable[[], Any], adapters: Any) -> Any:
    """The trained model, which can generate; of sharded weights on the first process alone.

    FSDP2 has no way back to a plain model: the whole weights are put into one that is loaded anew.

    Args:
        trainer: after training; every process must call.
        reload: loads the model that training began at.
        adapters: peft's settings, ``None`` where all weights were trained.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not is_sharded(model):
        return model
    weights = trainer.gathered_weights()
    if not trainer.accelerator.is_main_process:
        return model
    fresh = reload()
    fresh.config, fresh.generation_config = model.config, model.generation_config
    if adapters is not None:
        from peft import get_peft_model

        fresh = get_peft_model(fresh, adapters)
    own = {name: one for name, one in fresh.named_parameters() if one.requires_grad}
    assert own.keys() == weights.keys(), "the model that was loaded anew has other parameters"
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    return fresh.to(trainer.args.device)


def hide_means(examples: Sequence[RatingExample], share: float, seed: int) -> list[RatingExample]:
    """The same examples, a random ``share`` without the user's mean and as many without the item's.

    Users and items that are new after the training period have no mean, and no training sample is like that:
    a model that never met 'unknown' while it learned breaks the format there.
    """
    hidden = np.random.default_rng([seed, 1]).random((len(examples), 2)) < share
    return [
        replace(
            example,
            user_mean=None if user else example.user_mean,
            item_mean=None if item else example.item_mean,
        )
        for example, (user, item) in zip(examples, hidden.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class Validity:
    """How a model answers: measured by sampling at temperature 1, and greedily, on the same prompts."""

    sampled: list[RatingPrediction]
    greedy: list[RatingPrediction]
    truths: np.ndarray

    def metrics(self, prefix: str, reward: RatingReward) -> dict[str, float]:
        """``<prefix>_format_valid``, ``_reward`` and ``_fault_<kind>`` (shares of all answers), sampled;
        ``_format_valid_greedy`` and ``_mae_greedy``.
        """
        valid_greedy = np.array([prediction.fault is None for prediction in self.greedy])
        errors = np.abs([p.rating for p in self.greedy] - self.truths)[valid_greedy]
        rewards = [
            reward.total(prediction.text, truth)
            for prediction, truth in zip(self.sampled, self.truths, strict=True)
        ]
        figures = {
            f"{prefix}_format_valid": float(np.mean([p.fault is None for p in self.sampled])),
            f"{prefix}_reward": float(np.mean(rewards)),
            f"{prefix}_format_valid_greedy": float(valid_greedy.mean()),
        }
        faults = Counter(prediction.fault for prediction in self.sampled if prediction.fault is not None)
        for kind, count in sorted(faults.items()):
            figures[f"{prefix}_fault_{kind}"] = count / len(self.sampled)
        if len(errors):
            figures[f"{prefix}_mae_greedy"] = float(errors.mean())
        return figures


def measure_validity(
    predictor: TextRatingPredictor, examples: Sequence[RatingExample], *, seed: int
) -> Validity:
    """Answer each example twice: sampled at temperature 1 by ``seed``, and greedily."""
    return Validity(
        sampled=predictor.predict(examples, temperature=1.0, seed=seed),
        greedy=predictor.predict(examples),
        truths=np.array([example.rating for example in examples]),
    )


def write_rating_model(
    writer: ArtifactWriter, *, model: Any, tokenizer: Any, info: ModelInfo, dataset: Dataset
) -> None:
    """Fill a model directory: weights, tokenizer, ``model.json``, the dataset's catalogue with its means."""
    save_language_model(model, tokenizer, writer.path)
    info.write(writer.path)
    pq.write_table(dataset.items, writer.path / ITEMS_FILE)


def training_precision(dtype: str, lora_rank: int) -> tuple[str, bool]:
    """Dtype of the weights and whether passes run under bfloat16 autocast.

    ``auto`` on a GPU with bfloat16: weights that are trained stay in float32 (an update of 2e-6 is lost in
    bfloat16's 8 bits), frozen ones under LoRA adapters are bfloat16. ``auto`` elsewhere is float32.
    """
    fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if dtype != "auto":
        return dtype, False
    return ("bfloat16" if fast and lora_rank else "float32"), fast
