"""What both ways of training stage 2 share: opening stage 1's model, validation, the run, the model
directory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import set_seed as set_all_seeds

from latentrec.core import UserError
from latentrec.data import Dataset, sample_at_most
from latentrec.data.time_range import within_time_range
from latentrec.models.latentr3 import LoadedLatentR3, load_latentr3
from latentrec.storage import Manifest
from latentrec.training.common.checkpointing import Checkpoints, Interruption
from latentrec.training.common.early_stopping import EarlyStopping
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger
from latentrec.training.common.sharding import gather_parameters
from latentrec.training.latentr3.collator import NextItemTokens
from latentrec.training.latentr3.likelihood import DECODING_OF, allowed_tokens_of
from latentrec.training.latentr3.text_model import (
    Throughput,
    make_measure,
    open_text_dataset,
    write_model,
)
from latentrec.training.latentr3.validation_ranking import ranking_measure


@dataclass(frozen=True)
class StageEngine:
    """A trainer, the order of its samples, and the figures it adds to each log."""

    trainer: Any
    batch_sampler: Any
    figures: Callable[[], dict[str, float]]


@dataclass(frozen=True)
class TrainedStage:
    """What one training ended with: the trainer, and validation's record."""

    engine: StageEngine
    early_stopping: EarlyStopping
    load_best: bool

    @property
    def metrics(self) -> dict[str, float]:
        """Validation figures of the weights that it ended with."""
        return self.early_stopping.best_metrics if self.load_best else self.early_stopping.last_metrics


class Stage2:
    """One call of stage 2: the model that it begins at, its data, and where figures and checkpoints go.

    Attributes:
        loaded: stage 1's model; trained in place.
        data: the dataset.
        train_tokens: training samples.
        throughput: counts tokens.
        opened: the checkpoints of each run, removed once the model is written.
    """

    def __init__(self, step: str, model: Path, loaded: LoadedLatentR3, data: Dataset, train: NextItemTokens):
        """See :meth:`open`."""
        self.step, self.model_directory, self.loaded, self.data = step, model, loaded, data
        self.train_tokens = train
        self.throughput = Throughput()
        self.metric_logger = NO_METRICS
        self.checkpoint_root: str | None = None
        self.opened: list[Checkpoints] = []

    @classmethod
    def open(
        cls,
        step: str,
        config: Any,
        dataset: str | Path,
        model: str | Path,
        metric_logger: MetricLogger,
        checkpoint_root: str | None,
    ) -> Stage2:
        """Open dataset and stage 1's model.

        Raises:
            UserError: they cannot be used, or do not belong together.
        """
        data = open_text_dataset(dataset)
        loaded = load_latentr3(model)
        if loaded.info.dataset_fingerprint != data.fingerprint:
            raise UserError(
                f"{model} was trained on another dataset (fingerprint "
                f"{loaded.info.dataset_fingerprint[:12]}…, --dataset has {data.fingerprint[:12]}…); give the "
                "dataset of its sft step, or run sft on this one",
                code="model.other_dataset",
            )
        samples = within_time_range(data.split("train"), config.train_from, config.train_to)
        stage = cls(step, Path(model), loaded, data, NextItemTokens(samples, data.titles, loaded.prompt))
        stage.metric_logger = metric_logger
        stage.checkpoint_root = checkpoint_root
        return stage

    def reopen(self) -> None:
        """Begin at stage 1's weights again."""
        self.loaded = load_latentr3(self.model_directory)

    def train(
        self,
        config: Any,
        make_engine: Callable[[LoadedLatentR3, str], StageEngine],
        output: str | Path,
        objective: Callable[[Tensor], Tensor] | None = None,
    ) -> Manifest | None:
        """Train once and write the model directory; ``None`` on every process but the first."""
        trained = self.run(config, make_engine, objective)
        if not trained.engine.trainer.accelerator.is_main_process:
            return None
        return self.write(config, trained, output)

    def run(
        self,
        config: Any,
        make_engine: Callable[[LoadedLatentR3, str], StageEngine],
        objective: Callable[[Tensor], Tensor] | None = None,
    ) -> TrainedStage:
        """Train :attr:`loaded` to the end, from the newest checkpoint of the same work where there is one."""
        set_all_seeds(config.seed)
        loaded, data = self.loaded, self.data
        model, prompt = loaded.model, loaded.prompt
        model.backbone.requires_grad_(bool(config.train_backbone))
        if config.gradient_checkpointing:
            model.backbone.enable_checkpointing()
        self.train_tokens.allowed_tokens = allowed_tokens_of(config.likelihood, data, prompt)
        valid_samples = data.split("valid")
        drawn = sample_at_most(len(valid_samples), config.validation_samples, config.seed)
        valid = NextItemTokens(
            valid_samples.subset(drawn), data.titles, prompt, self.train_tokens.allowed_tokens
        )
        decoding = DECODING_OF[config.likelihood]
        rank = ranking_measure(model, prompt, data, config.ranking_samples, config.seed, decoding)
        early_stopping = EarlyStopping(
            make_measure(model, valid, rank, objective),
            metric_for_best_model=config.metric_for_best_model,
            patience=config.patience,
            collapse_on="hr_at_10" if config.collapse_below and rank is not None else None,
            collapse_below=config.collapse_below,
        )
        with (
            tempfile.TemporaryDirectory(prefix="latentrec-trainer-") as scratch,
            Interruption() as interruption,
        ):
            engine = make_engine(loaded, scratch)
            checkpoints = Checkpoints(
                self.checkpoint_root,
                step=self.step,
                config=config,
                dataset=data.fingerprint,
                parent=loaded.fingerprint,
            )
            self.opened.append(checkpoints)
            try:
                engine.trainer.configure(
                    checkpoints=checkpoints,
                    early_stopping=early_stopping,
                    metric_logger=self.metric_logger,
                    interruption=interruption,
                    eval_steps=int(config.eval_steps or 1),
                    save_steps=config.save_steps,
                    batch_sampler=engine.batch_sampler,
                    label=self.step,
                    evaluate_first=True,
                    keep_best=config.load_best_model_at_end,
                    on_step=engine.figures,
                    evaluates_whole=rank is not None,
                )
                engine.trainer.run()
                gather_parameters(engine.trainer.model, keep=checkpoints.main)
            finally:
                checkpoints.close()
        return TrainedStage(engine, early_stopping, config.load_best_model_at_end)

    def write(
        self, config: Any, trained: TrainedStage, output: str | Path, notes: list[str] | None = None
    ) -> Manifest:
        """Write the model directory."""
        counts: dict[str, Any] = {
            "train_samples": len(self.train_tokens),
            "steps": trained.engine.trainer.state.global_step,
            "best_step": trained.early_stopping.best_step,
        }
        manifest = write_model(
            output,
            model=self.loaded.model,
            prompt=self.loaded.prompt,
            dataset=self.data,
            stage=self.step,
            config=config,
            parent=self.loaded.fingerprint,
            parent_train_end=self.loaded.info.train_end,
            early_stopping=trained.early_stopping,
            load_best=config.load_best_model_at_end,
            notes=[*self.loaded.info.notes, *(notes or [])],
            counts=counts,
            curve=trained.engine.trainer.training_curve(),
        )
        for checkpoints in self.opened:
            checkpoints.clear()
        return manifest
