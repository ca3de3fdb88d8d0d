"""``grpo``: LatentR³'s stage 2 as reinforcement learning on the latent token.

For each prompt K copies ``r_k = r + ε_k`` (copy 1 without noise) are scored by how well the frozen model then
predicts the true title, and LatentRATT is moved towards the better ones (arXiv 2505.19092, §3.4).
``profile paper`` is the publication; where several learning rates are given, each is trained from the same
stage 1 and validation chooses.
"""

from __future__ import annotations

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch

from latentrec.core import UserError
from latentrec.models.latentr3 import LoadedLatentR3
from latentrec.storage import Manifest, check_output
from latentrec.training.common.batching import LengthGroupedPromptSampler
from latentrec.training.common.early_stopping import LOSS
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger
from latentrec.training.common.trainer_arguments import engine_options
from latentrec.training.common.world import world_size
from latentrec.training.latentr3.grpo_config import LatentGRPOConfig
from latentrec.training.latentr3.likelihood import DECODING_OF
from latentrec.training.latentr3.stage_2 import Stage2, StageEngine, TrainedStage
from latentrec.training.latentr3.validation_ranking import NdcgReward

STEP = "grpo"
_log = logging.getLogger(__name__)


def train_grpo(
    config: LatentGRPOConfig,
    *,
    dataset: str | Path,
    model: str | Path,
    output: str | Path,
    metric_logger: MetricLogger = NO_METRICS,
    checkpoint_root: str | None = None,
) -> Manifest | None:
    """Train stage 2 on noised latents and write the model directory.

    Args:
        config: estimator, noise, rewards and how long.
        dataset: the dataset that stage 1 was trained on.
        model: stage 1's model directory with a LatentRATT.
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
    if stage.loaded.model.latent_ratt is None:
        raise UserError(
            f"{model} has no LatentRATT (reasoning_tokens {stage.loaded.model.n_latents}, latent "
            f"'{stage.loaded.model.latent_source}'): there is no latent to reinforce; run sft with "
            "--reasoning-tokens 1, or use latentrec title-objective",
            code="model.no_latent_ratt",
        )
    if len(stage.train_tokens) < config.prompts_per_step:
        raise UserError(
            f"LatentGRPOConfig.batch_size is {config.batch_size} copies of {config.prompts_per_step} "
            f"prompts, "
            f"but there are {len(stage.train_tokens)} training samples; lower batch_size",
            code="config.conflict",
        )
    likelihood = config.likelihood or stage.loaded.info.config.get("likelihood") or "vocabulary"
    config = config.replace(likelihood=likelihood)
    return _best_of_rates(config, stage, output)


def _best_of_rates(config: LatentGRPOConfig, stage: Stage2, output: str | Path) -> Manifest | None:
    """Train at each learning rate from the same stage 1; write the one that is best on validation."""
    metric_for_best_model = str(config.metric_for_best_model)
    sign = -1 if metric_for_best_model == LOSS else 1
    chosen: tuple[LatentGRPOConfig, TrainedStage, dict[str, torch.Tensor]] | None = None
    notes = []
    for index, trial in enumerate(trials := config.at_each_rate()):
        if index:
            stage.reopen()
        trained = stage.run(trial, partial(_engine, trial, stage))
        figure = trained.metrics[metric_for_best_model]
        if len(trials) > 1:
            notes.append(
                f"learning rate {trial.learning_rate:g}: validation {metric_for_best_model} {figure:.5f}"
            )
            _log.info(notes[-1])
        if chosen is None or sign * figure > sign * chosen[1].metrics[metric_for_best_model]:
            chosen = trial, trained, _trained_weights(stage.loaded)
    assert chosen is not None
    best, trained, weights = chosen
    if not trained.engine.trainer.accelerator.is_main_process:
        return None
    stage.loaded.model.load_state_dict(weights, strict=False)
    if notes:
        notes.append(f"learning rate {best.learning_rate:g} was chosen on validation")
    return stage.write(best, trained, output, notes)


def _trained_weights(loaded: LoadedLatentR3) -> dict[str, torch.Tensor]:
    parameters = loaded.model.named_parameters()
    return {name: value.detach().clone() for name, value in parameters if value.requires_grad}


def _engine(config: LatentGRPOConfig, stage: Stage2, loaded: LoadedLatentR3, scratch: str) -> StageEngine:
    """trl's GRPO with a continuous action, its order of prompts and its extra figures."""
    from datasets import Dataset as Rows
    from trl import GRPOConfig as TrlConfig

    from latentrec.training.latentr3.grpo_trainer import LatentGRPOTrainer
    from latentrec.training.latentr3.latent_policy import Policy

    batch_sampler = LengthGroupedPromptSampler(
        stage.train_tokens.prompt_lengths,
        prompts_per_batch=config.prompts_per_step,
        copies=config.num_generations,
        repeats=config.gradient_accumulation_steps * config.num_iterations,
        iterations=config.num_iterations,
        seed=config.seed,
    )
    micro_batches = world_size() * config.gradient_accumulation_steps
    with warnings.catch_warnings():  # trl's default for gradient_checkpointing has a new name in transformers
        warnings.simplefilter("ignore", FutureWarning)
        arguments: Any = TrlConfig(
            **engine_options(config, scratch, epochs=config.num_train_epochs),
            max_steps=config.max_steps or -1,
            per_device_train_batch_size=config.batch_size // micro_batches,
            num_generations=config.num_generations,
            num_iterations=config.num_iterations,
            beta=0.0,
            gradient_checkpointing=False,
            disable_dropout=not config.train_backbone,
        )
    ranker = None
    if config.reward == "ndcg":
        ranker = NdcgReward(loaded.model, loaded.prompt, stage.data, DECODING_OF[str(config.likelihood)])
    policy = Policy(loaded.model)
    if torch.cuda.is_available():
        policy.to(arguments.device)
    trainer = LatentGRPOTrainer(
        config=config,
        tokens=stage.train_tokens,
        batch_sampler=batch_sampler,
        throughput=stage.throughput,
        ranker=ranker,
        model=policy,
        args=arguments,
        train_dataset=Rows.from_dict({"prompt": list(range(len(stage.train_tokens)))}),
        processing_class=loaded.prompt.tokenizer,
    )
    return StageEngine(trainer, batch_sampler, stage.throughput.figures)
