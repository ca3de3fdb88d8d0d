"""Configuration of LatentR³'s stage 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentrec.core import UserError, option
from latentrec.models.presets import PRESETS
from latentrec.training.judge import LOSS, SELECTIONS, check_selection
from latentrec.training.parts import check_part

SCRATCH_LEARNING_RATE = 2e-3
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "learning_rate": 3e-4,
        "schedule": "linear",
        "precision": "bf16",
        "packing": "none",
        "looks_per_epoch": 1,
        "patience": 1,
    },
    "default": {
        "learning_rate": 3e-4,
        "schedule": "cosine",
        "precision": "fp32",
        "packing": "exact",
        "looks_per_epoch": 2,
        "patience": 2,
    },
}
"""What unset options become. ``paper`` is the publication; its epochs, batch and warm-up are the defaults."""


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """Stage 1: backbone and LatentRATT learn the next title together (arXiv 2505.19092, §3.3)."""

    backbone: str = option(
        "tiny", help="preset (micro, tiny, small, medium, large), directory, gs://, hub id"
    )
    profile: str = option(
        "default", help="what unset options become; paper: as published", choices=("default", "paper")
    )
    reasoning_tokens: int = option(1, help="N, latent tokens before the answer; 0 is the backbone alone")
    latent: str = option(
        "latent_ratt",
        help="where a latent comes from; last_hidden is the paper's ablation",
        choices=("latent_ratt", "last_hidden"),
    )
    likelihood: str = option(
        "vocabulary",
        help="among what a token's probability is taken: the vocabulary (as published), or the tokens that "
        "continue some title of the catalogue; decode the latter with --host catalogue",
        choices=("vocabulary", "catalogue"),
    )
    train_backbone: str = option(
        "full",
        help="what of the backbone learns; frozen trains LatentRATT only",
        choices=("full", "lora", "frozen"),
    )
    lora_rank: int = option(16, help="rank of the adapters (train_backbone lora)")
    lora_alpha: int = option(32, help="scale of the adapters is lora_alpha / lora_rank")
    epochs: int = option(3, help="passes over the training split; early stopping may end sooner")
    batch_size: int = option(128, help="samples of an optimiser step, over all processes and accumulation")
    accumulation: int = option(1, help="micro-batches that each process takes for one optimiser step")
    learning_rate: float | None = option(
        None, help="peak of the schedule; unset: 2e-3 for presets, 3e-4 otherwise and in the paper profile"
    )
    warmup_steps: int = option(20, help="steps of linear warm-up")
    schedule: str | None = option(
        None,
        help="what follows the warm-up (default cosine, paper linear)",
        choices=("cosine", "linear", "constant_with_warmup"),
    )
    weight_decay: float = option(0.0, help="AdamW's decay")
    max_grad_norm: float = option(1.0, help="gradients are clipped to this norm; 0: not")
    precision: str | None = option(
        None,
        help="bf16: autocast, weights stay fp32 (default profile fp32, paper bf16)",
        choices=("fp32", "bf16"),
    )
    gradient_checkpointing: bool = option(False, help="recompute activations to save memory")
    packing: str | None = option(
        None,
        help="exact: prefixes of a user share a row where the loss stays the same; none: one sample a row "
        "(default profile exact, paper none)",
        choices=("none", "exact"),
    )
    max_history: int = option(10, help="titles of a prompt, counted from the newest")
    max_prompt_tokens: int = option(512, help="longest prompt; oldest titles are dropped to fit")
    max_title_tokens: int = option(128, help="longest title; a longer one is refused")
    train_from: float = option(
        0.0,
        help="where the training samples used begin, as a share of them by time; a share held out of one "
        "stage may serve the other",
    )
    train_to: float = option(1.0, help="where the training samples used end, as a share of them by time")
    max_train_samples: int = option(0, help="train on a seeded draw of so many samples; 0: all")
    looks_per_epoch: int | None = option(
        None, help="times an epoch that validation is looked at (default 2, paper 1)"
    )
    patience: int | None = option(
        None,
        help="looks without a better validation figure before training stops; 0: never (default 2, paper 1)",
    )
    select_on: str = option(
        LOSS,
        help="validation figure that decides which weights are kept, and when to stop; the loss is mostly "
        "spelling and may fall while the ranking gets worse",
        choices=SELECTIONS,
    )
    keep: str = option(
        "best", help="weights that the model ends with: best on validation, or last", choices=("best", "last")
    )
    validation_samples: int = option(2000, help="validation samples of a look, a seeded draw; 0: all")
    ranking_samples: int = option(200, help="of these, how many are ranked by the real decoder; 0: none")
    save_every: int = option(200, help="steps between checkpoints, besides one at each look")
    log_every: int = option(10, help="steps between figures")
    seed: int = option(42, help="of weights, order and draws")

    def __post_init__(self) -> None:
        """Fill what the profile decides, and refuse what cannot be meant."""
        values = dict(PROFILES[self.profile])
        if self.profile == "default" and self.backbone in PRESETS:
            values["learning_rate"] = SCRATCH_LEARNING_RATE
        for name, value in values.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        at_least = {
            "reasoning_tokens": 0,
            "epochs": 1,
            "batch_size": 1,
            "accumulation": 1,
            "warmup_steps": 0,
            "weight_decay": 0,
            "max_grad_norm": 0,
            "lora_rank": 1,
            "lora_alpha": 1,
            "max_history": 1,
            "max_title_tokens": 1,
            "max_train_samples": 0,
            "looks_per_epoch": 1,
            "patience": 0,
            "validation_samples": 0,
            "ranking_samples": 0,
            "save_every": 1,
            "log_every": 1,
        }
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(f"SFTConfig.{name} is {getattr(self, name)}; it must be at least {least}")
        check_part("SFTConfig", self.train_from, self.train_to)
        check_selection("SFTConfig", self.select_on, self.ranking_samples)
        assert self.learning_rate is not None
        if not 0 < self.learning_rate < 1:
            raise UserError(f"SFTConfig.learning_rate is {self.learning_rate}; it must be between 0 and 1")
        if self.train_backbone == "frozen" and (self.reasoning_tokens == 0 or self.latent == "last_hidden"):
            raise UserError(
                "SFTConfig.train_backbone is 'frozen', but without LatentRATT nothing would learn; "
                "use reasoning_tokens >= 1 with latent 'latent_ratt', or train the backbone"
            )

    def check_world(self, processes: int) -> None:
        """Refuse a batch that cannot be dealt out evenly.

        Raises:
            UserError: ``batch_size`` is not divisible by processes × accumulation.
        """
        parts = processes * self.accumulation
        if self.batch_size % parts:
            raise UserError(
                f"SFTConfig.batch_size is {self.batch_size}, which {processes} processes x accumulation "
                f"{self.accumulation} cannot share evenly; use a multiple of {parts}"
            )
