"""Configuration of LatentR³'s stage 2."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from latentrec.core import Config, UserError
from latentrec.core.config import (
    LARGEST,
    OPERATIONAL,
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
)
from latentrec.data.time_range import check_part
from latentrec.training.common.early_stopping import LOSS, OBJECTIVE, SELECTIONS, check_selection
from latentrec.training.latentr3.grpo_loss import ADVANTAGES, ESTIMATORS, REWARDS, TITLE_POLICY

PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "estimator": "target_likelihood",
        "reward": "perplexity",
        "advantage": "batch",
        "advantage_prompts": 2,
        "noise": "absolute",
        "noise_std": 1.5,
        "learning_rate": 1e-4,
        "warmup_steps": 200,
    },
    "default": {"estimator": TITLE_POLICY, "warmup_steps": 5},
}
"""What unset options become. ``paper`` is the publication and its code to the letter."""

_ON_THE_LATENT: dict[str, Any] = {
    "reward": "nll",
    "advantage": "own",
    "advantage_prompts": 0,
    "noise": "relative",
    "noise_std": 0.1,
    "learning_rate": 3e-4,
    "clip_low": 0.2,
    "clip_high": 0.28,
    "train_backbone": False,
    "select_on": LOSS,
    "judge_every": 20,
}
ESTIMATOR_DECIDES: dict[str, dict[str, Any]] = {
    "gaussian": _ON_THE_LATENT,
    "target_likelihood": _ON_THE_LATENT,
    TITLE_POLICY: {
        "reward": "exact_match",
        "advantage": "group",
        "likelihood": "catalogue",
        "learning_rate": 3e-4,
        "train_backbone": True,
        "select_on": OBJECTIVE,
        "judge_every": 100,
    },
}
"""What options become that the profile leaves unset; docs/estimator.md has the evidence."""
_OF_NOISED_LATENTS = ("noise", "noise_std", "advantage_prompts", "clip_low", "clip_high")


class GRPOConfig(Config):
    """Stage 2: reinforcement learning on titles, or on noised latents (arXiv 2505.19092, §3.4)."""

    step_name: ClassVar[str] = "grpo"

    profile: Literal["default", "paper"] = Field("default", description="what unset options become")
    estimator: Annotated[str, OneOf(*ESTIMATORS)] | None = Field(
        None,
        description="title_policy: the title is the action, and GRPO's gradient is taken in expectation "
        "over all titles; gaussian: the latent is the action, score function of its density; "
        "target_likelihood: the latent too, by the answer's likelihood, as published (default profile "
        "title_policy)",
    )
    reward: Annotated[str, OneOf(*REWARDS)] | None = Field(
        None,
        description="what an action is judged by (default: latents nll, titles exact_match; paper "
        "perplexity)",
    )
    perplexity_limit: PositiveFloat = Field(
        100.0, description="largest perplexity under reward clipped_perplexity"
    )
    advantage: Annotated[str, OneOf(*ADVANTAGES)] | None = Field(
        None,
        description="baseline: batch as published, group as in GRPO, own clean copy; titles know group, "
        "and none for a reward that no standard deviation divides (default: own for latents, group for "
        "titles)",
    )
    advantage_prompts: NonNegativeInt | None = Field(
        None,
        description="prompts that share one advantage; 0: the optimiser batch (default profile 0, paper 2 "
        "as coded)",
    )
    likelihood: Literal["vocabulary", "catalogue"] | None = Field(
        None,
        description="among what a token's probability is taken, in rewards and in the target's likelihood "
        "(default: the catalogue for titles, else as the model's stage 1)",
    )
    noise: Literal["absolute", "relative"] | None = Field(
        None,
        description="noise_std counts absolutely, or relative to the latent's root mean square (default "
        "relative)",
    )
    noise_std: PositiveFloat | None = Field(
        None, description="sigma (default 0.1 relative, paper 1.5 absolute)"
    )
    group_size: Annotated[int, Field(ge=2, le=LARGEST)] = Field(
        8,
        description="K, copies of a prompt; the first has no noise (titles: none are drawn, all are counted)",
    )
    batch_size: Annotated[int, Field(ge=2, le=LARGEST)] = Field(
        256, description="copies of an optimiser step: prompts x group_size"
    )
    accumulation: PositiveInt = Field(
        1, description="micro-batches that each process takes for one optimiser step"
    )
    iterations: PositiveInt = Field(
        1, description="optimiser steps on the same copies; above 1 the ratio is live"
    )
    clip_low: PositiveFloat | None = Field(None, description="ratio is clipped below 1 - clip_low (0.2)")
    clip_high: PositiveFloat | None = Field(None, description="ratio is clipped above 1 + clip_high (0.28)")
    beta: NonNegativeFloat = Field(
        0.0, description="weight of the KL to the stage-1 model (a frozen copy of what learns)"
    )
    train_backbone: bool | None = Field(
        None, description="train the backbone too, jointly with LatentRATT (default: for titles)"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
    epochs: PositiveFloat = Field(1.0, description="passes over the training split")
    train_from: Share = Field(
        0.0,
        description="where the training samples used begin, as a share of them by time; a share held out "
        "of one stage may serve the other",
    )
    train_to: Share = Field(
        1.0, description="where the training samples used end, as a share of them by time"
    )
    max_steps: NonNegativeInt = Field(0, description="stop after so many optimiser steps; 0: epochs decide")
    learning_rate: PositiveFloat | None = Field(
        None, description="peak of the schedule (default 3e-4, paper 1e-4)"
    )
    warmup_steps: NonNegativeInt | None = Field(
        None, description="steps of linear warm-up (default 5, paper 200)"
    )
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        "cosine", description="what follows the warm-up"
    )
    weight_decay: NonNegativeFloat = Field(0.0, description="AdamW's decay")
    max_grad_norm: NonNegativeFloat = Field(1.0, description="gradients are clipped to this norm; 0: not")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast; weights stay fp32")
    judge_every: PositiveInt | None = Field(
        None, description="steps between looks at validation (default 20 for latents, 100 for titles)"
    )
    patience: NonNegativeInt = Field(
        0, description="looks without a better figure before training stops; 0: never"
    )
    select_on: Annotated[str, OneOf(*SELECTIONS, OBJECTIVE)] | None = Field(
        None,
        description="validation figure that decides which weights are kept; objective: what the title policy "
        "maximises (default: objective for titles, else loss)",
    )
    keep: Literal["best", "last"] = Field(
        "best", description="weights that the model ends with: best on validation, or last"
    )
    collapse_below: NonNegativeFloat = Field(
        0.5, description="stop when validation HR@10 falls below this share of stage 1's; 0: no guard"
    )
    validation_samples: NonNegativeInt = Field(
        1000, description="validation samples of a look, a seeded draw; 0: all"
    )
    ranking_samples: NonNegativeInt = Field(
        200, description="of these, how many are ranked by the real decoder; 0: none"
    )
    diagnostics_every: NonNegativeInt = Field(
        10, description="steps between gradient cosines and other diagnostics; 0: never (they cost a pass)"
    )
    save_every: Annotated[PositiveInt, OPERATIONAL] = Field(
        100, description="steps between checkpoints, besides one at each look"
    )
    log_every: Annotated[PositiveInt, OPERATIONAL] = Field(5, description="steps between figures")
    seed: Seed = Field(42, description="of order, draws and noise")

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        """Fill what the profile decides, and refuse what cannot be meant."""
        profile = PROFILES[self.profile]
        if (self.estimator or profile["estimator"]) == TITLE_POLICY:
            self._check_title_policy()
            profile = {"estimator": TITLE_POLICY, "warmup_steps": profile["warmup_steps"]}
        self.fill(profile)
        self.fill(ESTIMATOR_DECIDES[str(self.estimator)])
        if self.advantage == "none" and self.estimator != TITLE_POLICY:
            raise UserError("grpo.advantage is 'none', which is of estimator title_policy")
        check_part("grpo", self.train_from, self.train_to)
        if self.batch_size % self.group_size:
            raise UserError(
                f"grpo.batch_size is {self.batch_size}, which is no multiple of group_size "
                f"{self.group_size}; it counts copies, not prompts"
            )
        if self.select_on == OBJECTIVE and self.estimator != TITLE_POLICY:
            raise UserError("grpo.select_on is 'objective', which is of estimator title_policy")
        check_selection("grpo", str(self.select_on), self.ranking_samples)
        return self

    def _check_title_policy(self) -> None:
        """Refuse what means nothing where the action is a title: it would be dropped without a word."""
        for name in _OF_NOISED_LATENTS:
            if (value := getattr(self, name)) is not None:
                raise UserError(
                    f"grpo.{name} is {value}, but estimator title_policy noises no latent; leave it "
                    "unset, or choose estimator gaussian or target_likelihood"
                )
        if self.reward not in (None, "exact_match"):
            raise UserError(f"grpo.reward is '{self.reward}'; estimator title_policy knows exact_match")
        if self.advantage not in (None, "group", "none"):
            raise UserError(
                f"grpo.advantage is '{self.advantage}'; estimator title_policy knows group and none"
            )
        for name, neutral in (("beta", 0), ("iterations", 1)):
            if getattr(self, name) != neutral:
                raise UserError(
                    f"grpo.{name} is {getattr(self, name)}; estimator title_policy counts all titles "
                    f"anew at each step, so {name} stays {neutral}"
                )

    @property
    def prompts_per_step(self) -> int:
        """Prompts of an optimiser batch."""
        return self.batch_size // self.group_size

    def check_world(self, processes: int) -> None:
        """Refuse a batch that cannot be dealt out evenly.

        Raises:
            UserError: the prompts of a batch are not divisible by processes × accumulation.
        """
        parts = processes * self.accumulation
        if self.prompts_per_step % parts:
            raise UserError(
                f"grpo.batch_size is {self.batch_size} copies of {self.prompts_per_step} prompts, "
                f"which {processes} processes x accumulation {self.accumulation} cannot share evenly; "
                f"use a multiple of {parts * self.group_size}"
            )
