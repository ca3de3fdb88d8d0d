"""Stage 2 of LatentR³: reinforcement learning with GRPO, on titles or on the latent token.

``title_policy``, the default: the title is the action
(:mod:`latentrec.training.latentr3.title_objective`). ``gaussian`` and ``target_likelihood``: for each prompt
K copies ``r_k = r + ε_k`` (copy 1 without noise) are judged by how well the frozen model then predicts the
true title, and LatentRATT is moved towards the better ones (arXiv 2505.19092, §3.4); ``profile paper`` is the
publication.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed as set_all_seeds

from latentrec.core import UserError
from latentrec.data import Dataset
from latentrec.data.time_range import part_of
from latentrec.models.latentr3 import LatentR3Model, LoadedLatentR3, load_latentr3
from latentrec.storage import Manifest
from latentrec.training.common.batching import PromptPlan
from latentrec.training.common.checkpointing import Checkpoints, Interruption
from latentrec.training.common.early_stopping import EarlyStopping
from latentrec.training.common.metric_logger import MetricLogger, NullMetricLogger
from latentrec.training.common.trainer_arguments import engine_options, training_arguments
from latentrec.training.latentr3.collator import NextItemTokens
from latentrec.training.latentr3.grpo_config import GRPOConfig
from latentrec.training.latentr3.grpo_loss import TITLE_POLICY, title_objective
from latentrec.training.latentr3.likelihood import HOST_OF, use_likelihood
from latentrec.training.latentr3.sft import RowCollator, plan_rows
from latentrec.training.latentr3.text_model import (
    Throughput,
    make_measure,
    open_text_dataset,
    sample_at_most,
    world_size,
    write_model,
)
from latentrec.training.latentr3.validation_ranking import NdcgReward, ranking_measure

Figures = Callable[[], dict[str, float]]


def train_grpo(
    config: GRPOConfig,
    *,
    dataset: str | Path,
    model: str | Path,
    output: str | Path,
    metric_logger: MetricLogger | None = None,
    checkpoint_root: str | None = None,
) -> Manifest | None:
    """Train stage 2 and write the model directory.

    Args:
        config: estimator, noise, rewards and how long.
        dataset: the dataset that stage 1 was trained on.
        model: stage 1's model directory; N ≥ 1 unless titles are the actions.
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
    metric_logger = metric_logger or NullMetricLogger()
    config.check_world(world_size())
    data = open_text_dataset(dataset)
    loaded = load_latentr3(model)
    _check_parent(config, loaded, data, str(model))
    set_all_seeds(config.seed)
    latentr3, prompt = loaded.model, loaded.prompt
    latentr3.backbone.requires_grad_(bool(config.train_backbone))
    if config.gradient_checkpointing:
        latentr3.backbone.enable_checkpointing()
    likelihood = config.likelihood or loaded.info.config.get("likelihood") or "vocabulary"
    config = config.replace(likelihood=likelihood)
    use_likelihood(latentr3, likelihood, data, prompt)
    train_samples = part_of(data.split("train"), config.train_from, config.train_to)
    valid_samples = data.split("valid")
    if len(train_samples) < config.prompts_per_step:
        raise UserError(
            f"GRPOConfig.batch_size is {config.batch_size} copies of {config.prompts_per_step} prompts, but "
            f"there are {len(train_samples)} training samples; lower batch_size"
        )
    train = NextItemTokens(train_samples, data.titles, prompt)
    drawn = sample_at_most(len(valid_samples), config.validation_samples, config.seed)
    valid = NextItemTokens(valid_samples.subset(drawn), data.titles, prompt)
    rank = ranking_measure(latentr3, prompt, data, config.ranking_samples, config.seed, HOST_OF[likelihood])
    objective = None
    if config.estimator == TITLE_POLICY:
        objective = partial(title_objective, advantage=str(config.advantage))
    early_stopping = EarlyStopping(
        make_measure(latentr3, valid, rank, objective),
        select_on=str(config.select_on),
        patience=config.patience,
        collapse_on="hr_at_10" if config.collapse_below and rank is not None else None,
        collapse_below=config.collapse_below,
    )
    throughput = Throughput()
    with tempfile.TemporaryDirectory(prefix="latentrec-trainer-") as scratch, Interruption() as interruption:
        if config.estimator == TITLE_POLICY:
            trainer, plan, figures = _on_titles(config, latentr3, train, throughput, scratch)
        else:
            trainer, plan, figures = _on_latents(config, loaded, data, train, throughput, scratch)
        main = trainer.accelerator.is_main_process
        checkpoints = Checkpoints(
            checkpoint_root,
            step="grpo",
            config=config,
            dataset=data.fingerprint,
            parent=loaded.fingerprint,
            main=main,
        )
        try:
            trainer.configure(
                checkpoints=checkpoints,
                early_stopping=early_stopping,
                metric_logger=metric_logger,
                interruption=interruption,
                judge_every=int(config.judge_every or 0),
                save_every=config.save_every,
                plan=plan,
                label="grpo",
                evaluate_first=True,
                keep_best=config.keep == "best",
                on_step=figures,
            )
            trainer.run()
        finally:
            checkpoints.close()
    if not main:
        return None
    counts: dict[str, Any] = {
        "train_samples": len(train),
        "steps": trainer.state.global_step,
        "best_step": early_stopping.best_step,
    }
    return write_model(
        output,
        model=latentr3,
        prompt=prompt,
        dataset=data,
        stage="grpo",
        config=config,
        parent=loaded.fingerprint,
        early_stopping=early_stopping,
        keep=config.keep,
        notes=list(loaded.info.notes),
        counts=counts,
    )


def _check_parent(config: GRPOConfig, loaded: LoadedLatentR3, data: Dataset, where: str) -> None:
    if loaded.model.n_latents == 0 and config.estimator != TITLE_POLICY:
        raise UserError(
            f"{where} was trained with reasoning_tokens 0: it has no latent to reinforce; "
            "run sft with --reasoning-tokens 1, or use --estimator title_policy"
        )
    if loaded.model.latent_ratt is None and not config.train_backbone:
        raise UserError(
            f"{where} has no LatentRATT, so nothing would learn; use --train-backbone, or another model"
        )
    if loaded.info.dataset_fingerprint != data.fingerprint:
        raise UserError(
            f"{where} was trained on another dataset (fingerprint {loaded.info.dataset_fingerprint[:12]}…, "
            f"--dataset has {data.fingerprint[:12]}…); give the dataset of its sft step, or run sft on "
            "this one"
        )


def _on_titles(
    config: GRPOConfig, model: LatentR3Model, train: NextItemTokens, throughput: Throughput, scratch: str
) -> tuple[Any, Any, Figures]:
    """Trainer, order and extra figures of the title policy."""
    from latentrec.training.latentr3.title_objective import TitleObjectiveTrainer

    rows = train.packed_rows()
    parts = world_size() * config.accumulation
    plan = plan_rows(train, rows, config.prompts_per_step, parts, config.seed)
    trainer = TitleObjectiveTrainer(
        advantage=str(config.advantage),
        model=model,
        args=training_arguments(config, scratch, epochs=config.epochs, max_steps=config.max_steps or -1),
        plan=plan,
        collate=RowCollator(train, rows),
        throughput=throughput,
    )
    return trainer, plan, trainer.figures


def _on_latents(
    config: GRPOConfig,
    loaded: LoadedLatentR3,
    data: Dataset,
    train: NextItemTokens,
    throughput: Throughput,
    scratch: str,
) -> tuple[Any, Any, Figures]:
    """Trainer, order and extra figures of the estimators that noise the latent: trl's GRPO."""
    from datasets import Dataset as Rows
    from trl import GRPOConfig as TrlConfig

    from latentrec.training.latentr3.grpo_trainer import LatentGRPOTrainer, Policy

    plan = PromptPlan(
        train.prompt_lengths,
        prompts_per_batch=config.prompts_per_step,
        copies=config.group_size,
        repeats=config.accumulation * config.iterations,
        iterations=config.iterations,
        seed=config.seed,
    )
    parts = world_size() * config.accumulation
    with warnings.catch_warnings():  # trl's default for gradient_checkpointing has a new name in transformers
        warnings.simplefilter("ignore", FutureWarning)
        arguments: Any = TrlConfig(
            **engine_options(config, scratch, epochs=config.epochs),
            max_steps=config.max_steps or -1,
            per_device_train_batch_size=config.batch_size // parts,
            num_generations=config.group_size,
            num_iterations=config.iterations,
            beta=0.0,
            gradient_checkpointing=False,
            disable_dropout=not config.train_backbone,
        )
    ranker = None
    if config.reward == "ndcg":
        ranker = NdcgReward(loaded.model, loaded.prompt, data, HOST_OF[config.likelihood or "vocabulary"])
    policy = Policy(loaded.model)
    if torch.cuda.is_available():
        policy.to(arguments.device)
    trainer = LatentGRPOTrainer(
        config=config,
        tokens=train,
        plan=plan,
        throughput=throughput,
        ranker=ranker,
        model=policy,
        args=arguments,
        train_dataset=Rows.from_dict({"prompt": list(range(len(train)))}),
        processing_class=loaded.prompt.tokenizer,
    )
    return trainer, plan, throughput.figures
