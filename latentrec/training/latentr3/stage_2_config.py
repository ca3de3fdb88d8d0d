"""What both ways of training stage 2 of LatentR³ share: how long, how fast, what validation decides."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from latentrec.core import Config
from latentrec.core.config import (
    OPERATIONAL,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
)


class Stage2Config(Config):
    """Fields that :class:`LatentGRPOConfig` and :class:`TitleObjectiveConfig` share."""

    gradient_accumulation_steps: PositiveInt = Field(
        1, description="micro-batches that each process takes for one optimizer step"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
    num_train_epochs: PositiveFloat = Field(1.0, description="passes over the training split")
    train_from: Share = Field(
        0.0,
        description="where the training samples used begin, as a share of them by time; a share held out "
        "of one stage may serve the other",
    )
    train_to: Share = Field(
        1.0, description="where the training samples used end, as a share of them by time"
    )
    max_steps: NonNegativeInt = Field(0, description="stop after so many optimizer steps; 0: epochs decide")
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        "cosine", description="what follows the warm-up"
    )
    weight_decay: NonNegativeFloat = Field(0.0, description="AdamW's decay")
    max_grad_norm: NonNegativeFloat = Field(1.0, description="gradients are clipped to this norm; 0: not")
    patience: NonNegativeInt = Field(
        0, description="evaluations without a better figure before training stops; 0: never"
    )
    validation_samples: NonNegativeInt = Field(
        1000, description="validation samples of an evaluation, a seeded draw; 0: all"
    )
    save_steps: Annotated[PositiveInt, OPERATIONAL] = Field(
        100, description="steps between checkpoints, besides one at each evaluation"
    )
    logging_steps: Annotated[PositiveInt, OPERATIONAL] = Field(5, description="steps between figures")
    seed: Seed = Field(42, description="of order, draws and noise")
