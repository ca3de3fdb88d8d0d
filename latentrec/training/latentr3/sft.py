"""Stage 1 of LatentR³: supervised fine-tuning on titles, backbone and LatentRATT together.

``L = token mean of −log P(y_t | x, r, y_<t)`` over the answer's tokens (arXiv 2505.19092, eq. 5). The prompt
is read once with gradients; latents and answers stand on its keys and values. With ``packing exact`` all
prefixes of a user share one row, each a branch under a tree mask: the same loss for fewer tokens.

Built on ``transformers.Trainer``; runs alike in one process, under ``torchrun`` or ``accelerate launch``.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed as set_all_seeds

from latentrec.core import UserError
from latentrec.core.settings import STEP_VARIABLE
from latentrec.data import Dataset, sample_at_most
from latentrec.data.time_range import within_time_range
from latentrec.models import read_model
from latentrec.models.gguf import origin_note
from latentrec.models.latentr3 import LatentR3Model, load_backbone
from latentrec.models.presets import PRESETS
from latentrec.prompts import NextItemPrompt, title_line
from latentrec.prompts.title_prompt import INSTRUCTION, RESPONSE
from latentrec.storage import Manifest, check_output
from latentrec.training.common.checkpointing import Checkpoints, Interruption
from latentrec.training.common.early_stopping import EarlyStopping
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger
from latentrec.training.common.sharding import gather_parameters, sharding_options
from latentrec.training.common.trainer_arguments import training_arguments
from latentrec.training.common.world import world_size
from latentrec.training.latentr3.batch_splitting import forward_budget
from latentrec.training.latentr3.collator import NextItemTokens
from latentrec.training.latentr3.likelihood import DECODING_OF, allowed_tokens_of
from latentrec.training.latentr3.sft_config import SFTConfig
from latentrec.training.latentr3.sft_trainer import RowCollator, SFTTrainer, row_batches
from latentrec.training.latentr3.text_model import (
    Throughput,
    make_measure,
    open_text_dataset,
    write_model,
)
from latentrec.training.latentr3.trainable import choose_trainable
from latentrec.training.latentr3.validation_ranking import ranking_measure
from latentrec.training.latentr3.warm_start import start_from

PLACEHOLDER_NOTE = (
    "backbone '{0}' is a small placeholder trained from scratch on this catalogue: it knows no language"
)


def train_sft(
    config: SFTConfig,
    *,
    dataset: str | Path,
    output: str | Path,
    init_from: str | Path | None = None,
    metric_logger: MetricLogger = NO_METRICS,
    checkpoint_root: str | None = None,
) -> Manifest | None:
    """Train stage 1 and write the model directory.

    Args:
        config: what to train and how.
        dataset: a next-item dataset directory with titles.
        output: the model directory to make.
        init_from: a model directory whose weights training begins with (see :func:`start_from`).
        metric_logger: receives figures while training runs.
        checkpoint_root: directory or ``gs://``; a run that was interrupted resumes from there by itself.

    Returns:
        The manifest of the model directory; ``None`` on every process but the first.

    Raises:
        UserError: configuration, dataset or backbone cannot be used; nothing was trained.
        Interrupted: stopped on a signal after saving.
        TrainingDiverged: the loss is no longer a number.
    """
    check_output(output, kind="model", inputs=[dataset, init_from])
    config.check_world(world_size())
    data = open_text_dataset(dataset)
    set_all_seeds(config.seed)
    parent = None
    if init_from is None:
        model, prompt, notes = build_model(config, data)
    else:
        model, prompt, notes, parent = start_from(config, data, init_from)
    if config.gradient_checkpointing:
        model.backbone.enable_checkpointing()
    if config.torch_compile:
        model.backbone.compile_layers()
    train, valid = tokens_of(config, data, prompt)
    adapters = choose_trainable(config, model)
    rows = train.packed_rows() if config.packing == "exact" else train.single_rows()
    batch_sampler = row_batches(
        train, rows, config.batch_size, world_size() * config.gradient_accumulation_steps, config.seed
    )
    throughput = Throughput()
    rank = ranking_measure(
        model, prompt, data, config.ranking_samples, config.seed, DECODING_OF[config.likelihood]
    )
    early_stopping = EarlyStopping(
        make_measure(model, valid, rank),
        metric_for_best_model=config.metric_for_best_model,
        patience=config.patience or 0,
    )
    with Checkpoints(
        checkpoint_root, step="sft", config=config, dataset=data.fingerprint, parent=parent
    ) as checkpoints:
        with (
            tempfile.TemporaryDirectory(prefix="latentrec-trainer-") as scratch,
            Interruption() as interruption,
        ):
            trainer = SFTTrainer(
                model=model,
                args=training_arguments(
                    config,
                    scratch,
                    epochs=config.num_train_epochs,
                    **sharding_options(config.sharding, model.backbone.layer_class()),
                ),
                batch_sampler=batch_sampler,
                collate=RowCollator(train, rows),
                allowed_tokens=train.allowed_tokens,
                throughput=throughput,
                prompt_key_dropout=config.ablation.prompt_key_dropout,
                latent_loss=config.ablation.latent_loss,
                latent_loss_weight=config.ablation.latent_loss_weight,
                max_tokens_per_forward=forward_budget(config, model.backbone.config),
            )
            trainer.configure(
                checkpoints=checkpoints,
                early_stopping=early_stopping,
                metric_logger=metric_logger,
                interruption=interruption,
                eval_steps=batch_sampler.batches_per_epoch // (config.evals_per_epoch or 1),
                save_steps=config.save_steps,
                batch_sampler=batch_sampler,
                label=os.environ.get(STEP_VARIABLE) or "sft",  # two such steps may run side by side
                evaluate_first=parent is not None,
                keep_best=config.load_best_model_at_end,
                on_step=throughput.figures,
                evaluates_whole=rank is not None,
            )
            with _output_layer(config, model, data, prompt):
                trainer.run()
            gather_parameters(model, keep=checkpoints.main)
        if not checkpoints.main:
            return None
        if adapters is not None:
            adapters.merge_and_unload()
        return write_model(
            output,
            model=model,
            prompt=prompt,
            dataset=data,
            stage="sft",
            config=config,
            parent=parent,
            parent_train_end=0 if init_from is None else read_model(init_from)[0].train_end,
            early_stopping=early_stopping,
            load_best=config.load_best_model_at_end,
            notes=notes,
            counts={
                "train_samples": len(train),
                "rows": len(rows),
                "steps": trainer.state.global_step,
                "best_step": early_stopping.best_step,
            },
            curve=trainer.training_curve(),
        )


def _output_layer(
    config: SFTConfig, model: LatentR3Model, data: Dataset, prompt: NextItemPrompt
) -> AbstractContextManager[None]:
    """While it lasts, the output layer is computed for the tokens that ``output_tokens`` names."""
    if config.output_tokens == "vocabulary":
        return nullcontext()
    used = {token for title in set(data.titles) for token in prompt.encode_target(title)}
    return model.backbone.restricted_to(torch.tensor(sorted(used)))


def tokenizer_texts(data: Dataset) -> list[str]:
    """What the tokenizer of a preset learns from: the catalogue's titles and the prompt's own text."""
    return [title_line(title) for title in dict.fromkeys(data.titles)] + [INSTRUCTION, RESPONSE] * 100


def build_model(config: SFTConfig, data: Dataset) -> tuple[LatentR3Model, NextItemPrompt, list[str]]:
    """Backbone, LatentRATT and prompt as configured; and notes for their users."""
    backbone, tokenizer = load_backbone(config.backbone, texts=tokenizer_texts(data), seed=config.seed)
    prompt = NextItemPrompt(
        tokenizer,
        max_history=config.max_history,
        max_prompt_tokens=config.max_prompt_tokens,
        max_title_tokens=config.max_title_tokens,
    )
    require_context(config, backbone.config)
    torch.manual_seed(config.seed)
    model = LatentR3Model(
        backbone,
        n_latents=config.reasoning_tokens,
        latent_source=config.latent,
        latent_width=config.ablation.latent_width,
        answer_reads=config.ablation.answer_reads,
    )
    model.backbone.check()
    notes = [PLACEHOLDER_NOTE.format(config.backbone)] if config.backbone in PRESETS else []
    if (origin := getattr(backbone.config, "origin", None)) is not None:
        notes.append(origin_note(origin))
    return model, prompt, notes


def require_context(config: SFTConfig, backbone: Any) -> None:
    """Refuse rows that the backbone's positions do not hold; it would fail at the first long prompt.

    Args:
        config: of the stage.
        backbone: its configuration; without ``max_position_embeddings`` nothing is known.

    Raises:
        UserError: prompt, latents and title together may be longer.
    """
    most = getattr(backbone, "max_position_embeddings", None)
    row = config.max_prompt_tokens + config.reasoning_tokens + config.max_title_tokens
    if most and row > most:
        raise UserError(
            f"sft: max_prompt_tokens {config.max_prompt_tokens}, reasoning_tokens {config.reasoning_tokens} "
            f"and max_title_tokens {config.max_title_tokens} make rows of up to {row:,} tokens, and "
            f"{config.backbone} has {most:,} positions; lower max_prompt_tokens",
            code="prompt.too_long",
        )


def tokens_of(
    config: SFTConfig, data: Dataset, prompt: NextItemPrompt
) -> tuple[NextItemTokens, NextItemTokens]:
    """Training and validation samples as tokens."""
    prompt.check_titles(data.titles)
    train, valid = (
        within_time_range(data.split("train"), config.train_from, config.train_to),
        data.split("valid"),
    )
    train = train.subset(sample_at_most(len(train), config.max_train_samples, config.seed))
    valid = valid.subset(sample_at_most(len(valid), config.validation_samples, config.seed))
    allowed = allowed_tokens_of(config.likelihood, data, prompt)
    return (
        NextItemTokens(train, data.titles, prompt, allowed),
        NextItemTokens(valid, data.titles, prompt, allowed),
    )
