"""``title-objective``: LatentR³'s stage 2 on p, the probability of the true title among the catalogue's.

A supervised loss: each sample's ``∇log p`` is weighted by a function of p
(:mod:`latentrec.training.latentr3.title_weights`); with ``estimator sampled`` the same gradient is had by
GRPO that draws its titles (:mod:`latentrec.training.latentr3.sampled_titles`). A step costs what a step of
stage 1 costs, prefixes packed. Backbone and latents learn together unless the backbone is frozen; N = 0
learns by it too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentrec.core import UserError
from latentrec.models.latentr3 import LoadedLatentR3
from latentrec.storage import Manifest, check_output
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger
from latentrec.training.common.sharding import sharding_options
from latentrec.training.common.trainer_arguments import training_arguments
from latentrec.training.common.world import world_size
from latentrec.training.latentr3.batch_splitting import forward_budget
from latentrec.training.latentr3.collator import has_title
from latentrec.training.latentr3.sampled_titles import SampledTitles
from latentrec.training.latentr3.sft_trainer import RowCollator, SFTTrainer, row_batches
from latentrec.training.latentr3.stage_2 import Stage2, StageEngine
from latentrec.training.latentr3.title_objective_config import TitleObjectiveConfig
from latentrec.training.latentr3.title_weights import gradient_weight, objective_value

STEP = "title-objective"


class TitleObjectiveTrainer(SFTTrainer):
    """Stage 1's engine over packed rows, each sample weighted by its ``p``.

    Args:
        config: objective and estimator.
        sampler: draws titles, where the estimator is ``sampled``.
    """

    def __init__(self, *, config: TitleObjectiveConfig, sampler: SampledTitles | None, **options: Any):
        """Nothing is counted yet."""
        self._objective_config = config
        self._sampler = sampler
        self._probabilities: list[Tensor] = []
        super().__init__(**options)

    def _items_of(self, labels: Tensor) -> Tensor:
        """The objective is a mean over samples."""
        return has_title(labels).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This micro-batch's share of the mean over samples, whose gradient ascends the objective."""
        if self._sampler is not None:
            loss, log_p = model(lambda latentr3: self._sampler.loss(latentr3, inputs, num_items_in_batch))
            self._throughput.tokens += inputs["input_ids"].numel()
        else:
            log_probs_BML, _ = self._answer_pass(model, inputs)
            log_p = log_probs_BML.sum(dim=-1)[has_title(inputs["labels"])]
            weight = gradient_weight(log_p.detach(), **_parameters(self._objective_config))
            loss = -(weight * log_p).sum() / num_items_in_batch
        self._probabilities.append(torch.exp(log_p.detach()))
        # DDP averages gradients over processes; each process contributes its part of one mean.
        return loss * self.accelerator.num_processes

    def figures(self) -> dict[str, float]:
        """Throughput, and since the last call ``title_probability``, the true titles' mean p, with its
        standard deviation over samples; what the sampler has seen."""
        seen = torch.cat(self._probabilities) if self._probabilities else torch.zeros(0)
        self._probabilities = []
        figures = self._throughput.figures()
        if len(seen) > 1:
            figures |= {"title_probability": float(seen.mean()), "title_probability_std": float(seen.std())}
        return figures | (self._sampler.figures() if self._sampler is not None else {})


def train_title_objective(
    config: TitleObjectiveConfig,
    *,
    dataset: str | Path,
    model: str | Path,
    output: str | Path,
    metric_logger: MetricLogger = NO_METRICS,
    checkpoint_root: str | None = None,
) -> Manifest | None:
    """Train stage 2 on an objective over titles and write the model directory.

    Args:
        config: objective, estimator and how long.
        dataset: the dataset that stage 1 was trained on.
        model: stage 1's model directory, of any N.
        output: the model directory to make.
        metric_logger: receives figures while training runs.
        checkpoint_root: directory or ``gs://``; a run that was interrupted resumes from there by itself.

    Returns:
        The manifest of the model directory; ``None`` on every process but the first.

    Raises:
        UserError: configuration, dataset or model cannot be used; nothing was trained.
        Interrupted: stopped on a signal after saving.
        TrainingDiverged: the loss is no longer a number.
    """
    check_output(output, kind="model", inputs=[dataset, model])
    config.check_world(world_size())
    stage = Stage2.open(STEP, config, dataset, model, metric_logger, checkpoint_root)
    loaded = stage.loaded
    if loaded.model.latent_ratt is None and loaded.model.pause_tokens is None and not config.train_backbone:
        raise UserError(
            f"{model} has no LatentRATT, so nothing would learn; use --train-backbone, or another model",
            code="model.no_latent_ratt",
        )
    value = partial(objective_value, **_parameters(config))
    return stage.train(config, partial(_engine, config, stage), output, objective=value)


def _engine(config: TitleObjectiveConfig, stage: Stage2, loaded: LoadedLatentR3, scratch: str) -> StageEngine:
    """Trainer, order and extra figures."""
    tokens = stage.train_tokens
    rows = tokens.packed_rows() if config.estimator == "exact" else tokens.single_rows()
    micro_batches = world_size() * config.gradient_accumulation_steps
    batch_sampler = row_batches(tokens, rows, config.batch_size, micro_batches, config.seed)
    sampler = None
    if config.estimator == "sampled":
        sampler = SampledTitles(config, loaded, stage.data)
    trainer = TitleObjectiveTrainer(
        config=config,
        sampler=sampler,
        allowed_tokens=tokens.allowed_tokens,
        model=loaded.model,
        args=training_arguments(
            config,
            scratch,
            epochs=config.num_train_epochs,
            max_steps=config.max_steps or -1,
            **sharding_options(config.sharding, loaded.model.backbone.layer_class()),
        ),
        batch_sampler=batch_sampler,
        collate=RowCollator(tokens, rows),
        throughput=stage.throughput,
        max_tokens_per_forward=forward_budget(config, loaded.model.backbone.config),
    )
    return StageEngine(trainer, batch_sampler, trainer.figures)


def _parameters(config: TitleObjectiveConfig) -> dict[str, Any]:
    return {
        "objective": config.objective,
        "exponent": config.exponent,
        "num_generations": config.num_generations,
    }
