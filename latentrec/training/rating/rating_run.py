"""One rating training: the model that it starts from, its validity before and after, the model directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.data.dataset import Dataset
from latentrec.models.model_directory import ModelInfo, write_curve
from latentrec.models.rating.text_predictor import (
    LoadedModel,
    TextRatingPredictor,
    architecture_entry,
    load_language_model,
)
from latentrec.prompts.rating_examples import RatingTask
from latentrec.prompts.rating_prompt import RatingPrompt
from latentrec.storage import ArtifactWriter, Manifest
from latentrec.training.common.checkpointing import Checkpoints
from latentrec.training.common.metric_logger import MetricLogger
from latentrec.training.rating.rating_config import ColdStartConfig, RatingGRPOConfig
from latentrec.training.rating.rewards import RatingReward
from latentrec.training.rating.trainer_setup import (
    measure_validity,
    prompt_settings,
    training_precision,
    write_rating_model,
)

Metrics = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What a trainer says of its model: the system's name, notes for users, counts of its manifest."""

    system: str
    notes: list[str]
    counts: dict[str, Any]


@dataclass(frozen=True)
class RatingRun:
    """Configuration, data and starting model of cold start or GRPO.

    Attributes:
        config: of the trainer.
        data, task: the dataset, and its samples as rating prompts.
        loaded: starting model; trained in place.
        prompt: how it is asked, on the scale that it was trained with.
        source: where the starting model is loaded from.
    """

    config: ColdStartConfig | RatingGRPOConfig
    data: Dataset
    task: RatingTask
    loaded: LoadedModel
    prompt: RatingPrompt
    source: str

    @classmethod
    def open(
        cls, config: ColdStartConfig | RatingGRPOConfig, dataset: str | Path, model: str | Path | None
    ) -> RatingRun:
        """Open dataset and starting model.

        Raises:
            UserError: neither or both of ``model`` and ``config.backbone``; a dataset of another task.
        """
        if (model is None) == (config.backbone is None):
            raise UserError(
                "give either --model (from pretrain-rating or cold-start-sft) or --backbone",
                code="config.conflict",
            )
        data = Dataset(dataset)
        task = RatingTask(data)
        source = str(config.backbone if model is None else model)
        loaded = cls._load(config, source)
        settings = prompt_settings(loaded, config.prompt_overrides)
        prompt = RatingPrompt(loaded.tokenizer, settings, loaded.scale or config.scale)
        return cls(config, data, task, loaded, prompt, source)

    @staticmethod
    def _load(config: ColdStartConfig | RatingGRPOConfig, source: str) -> LoadedModel:
        return load_language_model(source, dtype=training_precision(config.dtype, config.lora_rank)[0])

    def reload(self) -> Any:
        """The starting model once more, untrained."""
        return self._load(self.config, self.source).model

    def train(
        self,
        fit: Callable[[Checkpoints], tuple[Any, list[Metrics]]],
        describe: Callable[[Metrics, Metrics, int], Outcome],
        *,
        key: Any,
        budget: int,
        reward: RatingReward,
        output: str | Path,
        metric_logger: MetricLogger,
        checkpoint_root: str | None,
    ) -> Manifest | None:
        """Measure, train, measure again, write the model directory; ``None`` on every process but the first.

        Args:
            fit: trains; gives the model and its training curve.
            describe: from the figures before and after, and the number of steps.
            key: what the checkpoints' key is made of, besides dataset and starting model.
            budget: tokens of an answer.
            reward: of the measured answers.
            output, metric_logger, checkpoint_root: as of the trainer.

        Raises:
            Interrupted: a signal came; the state was saved where there is a ``checkpoint_root``.
        """
        config, loaded, step = self.config, self.loaded, self.config.step_name
        predictor = TextRatingPredictor(loaded.model, loaded.tokenizer, self.prompt, max_new_tokens=budget)
        examples = self.task.examples("valid", limit=config.measured_prompts, seed=config.seed)

        def measure(when: str, steps: int) -> Metrics:
            figures = measure_validity(predictor, examples, seed=config.seed).metrics(when, reward)
            metric_logger.log_metrics({f"valid/{name}": value for name, value in figures.items()}, steps)
            return figures

        parent = loaded.fingerprint or config.backbone
        with Checkpoints(
            checkpoint_root, step=step, config=key, dataset=self.data.fingerprint, parent=parent
        ) as checkpoints:
            before = measure("start", 0) if checkpoints.main else {}  # the others wait at the first step
            trained, curve = fit(checkpoints)
            if not checkpoints.main:
                return None
            predictor.model = trained
            after = measure("end", len(curve))
            outcome = describe(before, after, len(curve))
            info = ModelInfo(
                system=outcome.system,
                stage=step,
                config=config.to_dict(),
                architecture=architecture_entry(
                    self.prompt.settings, self.prompt.scale, budget, self.task.global_mean
                ),
                metrics={**before, **after},
                dataset_fingerprint=self.data.fingerprint,
                parent=loaded.fingerprint,
                train_end=self.data.train_end,
                notes=[*loaded.notes, *outcome.notes],
            )
            inputs = {"dataset": self.data.fingerprint}
            inputs |= {"model": loaded.fingerprint} if loaded.fingerprint else {}
            with ArtifactWriter(output, "model", config, inputs) as writer:
                write_rating_model(
                    writer, model=trained, tokenizer=loaded.tokenizer, info=info, dataset=self.data
                )
                write_curve(writer.path, curve)
                writer.counts = {"steps": len(curve), **outcome.counts}
        return writer.manifest
