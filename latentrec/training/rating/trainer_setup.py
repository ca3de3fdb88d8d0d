"""What the three rating trainers share: trainer arguments, the training run, prompts, the model directory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from latentrec.core import UserError
from latentrec.core.host import return_freed_memory
from latentrec.data.dataset import Dataset
from latentrec.models.model_directory import ModelInfo
from latentrec.models.rating.text_predictor import (
    LoadedModel,
    RatingPrediction,
    TextRatingPredictor,
    save_language_model,
)
from latentrec.prompts.rating_examples import RatingExample
from latentrec.prompts.rating_format import RatingScale
from latentrec.prompts.rating_prompt import INSTRUCT_SETTINGS, RatingPrompt, RatingPromptSettings
from latentrec.storage import ArtifactWriter
from latentrec.training.common.checkpointing import Checkpoints, Interruption
from latentrec.training.common.metric_logger import MetricLogger
from latentrec.training.rating.rewards import RatingReward

RATING_ITEMS = "items.parquet"


@contextmanager
def open_checkpoints(
    root: str | None, *, step: str, config: Any, dataset: str, parent: str | None
) -> Iterator[Checkpoints]:
    """The checkpoints of this work; the first of several processes writes. Removed when the body succeeds."""
    checkpoints = Checkpoints(
        root,
        step=step,
        config=config,
        dataset=dataset,
        parent=parent,
        main=os.environ.get("RANK", "0") == "0",
    )
    try:
        yield checkpoints
        checkpoints.clear()
    finally:
        checkpoints.close()


def prompt_settings(loaded: LoadedModel, overrides: Mapping[str, Any]) -> RatingPromptSettings:
    """The prompt's settings: the model's own, else those for instruct models, updated by ``overrides``."""
    settings = loaded.settings or INSTRUCT_SETTINGS
    return replace(settings, **{name: value for name, value in overrides.items() if value is not None})


def trainer_settings(output_dir: Path, *, seed: int) -> dict[str, Any]:
    """Arguments that all transformers trainers of the rating family share; we save checkpoints ourselves."""
    return_freed_memory()
    return {
        "output_dir": str(output_dir),
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": seed,
        "data_seed": seed,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "push_to_hub": False,
    }


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
    """Fill a model directory: weights, tokenizer, ``model.json``, the catalogue with training means."""
    save_language_model(model, tokenizer, writer.path)
    info.write(writer.path)
    write_items(dataset, writer.path / RATING_ITEMS)


def write_items(dataset: Dataset, path: Path) -> None:
    """The catalogue as the dataset has it, means of the training period included."""
    table: pa.Table = dataset.items
    pq.write_table(table, path)


def training_end(dataset: Dataset) -> int:
    """UTC seconds of the last training event."""
    value = dataset.manifest.extra.get("train_end")
    if value is None:
        raise UserError(
            f"{dataset.directory}: its manifest has no 'train_end'; prepare the data again",
            code="dataset.other_version",
        )
    return int(value)


def predictor_for(loaded: LoadedModel, prompt: RatingPrompt, max_new_tokens: int) -> TextRatingPredictor:
    """A predictor around a model that is being trained."""
    return TextRatingPredictor(loaded.model, loaded.tokenizer, prompt, max_new_tokens=max_new_tokens)


def scale_for(loaded: LoadedModel, configured: RatingScale) -> RatingScale:
    """The model's own scale, else the configured one."""
    return loaded.scale or configured


def training_precision(dtype: str, lora_rank: int) -> tuple[str, bool]:
    """Dtype of the weights and whether passes run under bfloat16 autocast.

    ``auto`` on a GPU with bfloat16: weights that are trained stay in float32 (an update of 2e-6 is lost in
    bfloat16's 8 bits), frozen ones under LoRA adapters are bfloat16. ``auto`` elsewhere is float32.
    """
    fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if dtype != "auto":
        return dtype, False
    return ("bfloat16" if fast and lora_rank else "float32"), fast


def lora(rank: int, alpha: int) -> Any:
    """Adapters of this rank on every linear layer; ``None`` for rank 0, which trains all weights."""
    if not rank:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
