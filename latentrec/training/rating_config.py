"""Settings of the rating steps: pre-training of the stand-in, cold start, GRPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentrec.core import UserError, option
from latentrec.models.rating.standin import StandInShape
from latentrec.prompts.rating import STYLES, RatingPromptSettings
from latentrec.prompts.rating_format import RatingScale
from latentrec.training.rating_rewards import RatingReward

PRESET = "tiny"
PROFILES: dict[str, dict[str, Any]] = {
    "default": {
        "learning_rate": 1e-3,
        "steps": 100,
        "prompts_per_step": 8,
        "max_completion_tokens": 64,
        "hidden_means": 0.25,
    },
    "paper": {
        "learning_rate": 2e-6,
        "steps": 0,
        "prompts_per_step": 16,
        "max_completion_tokens": 1024,
        "hidden_means": 0.0,
    },
}


@dataclass(frozen=True, kw_only=True)
class PretrainRatingConfig:
    """Settings of the pre-training; sizes are those of the small preset."""

    backbone: str = option(
        PRESET, help="'tiny' pre-trains the stand-in; a directory or hub id is passed on as is"
    )
    format_rate: float = option(0.3, help="share of rating prompts answered in the format")
    reading_share: float = option(0.2, help="share of prompts that ask for something to be read out")
    steps: int = option(800, help="optimiser steps")
    batch_size: int = option(16, help="texts a step")
    learning_rate: float = option(6e-3, help="peak rate, cosine after 5 % warm-up")
    hidden_size: int = option(96, help="width of the stand-in")
    layers: int = option(2, help="decoder layers")
    heads: int = option(4, help="attention heads")
    vocabulary: int = option(1000, help="entries of its tokenizer")
    max_prompt_tokens: int = option(144, help="budget of a prompt, in tokens")
    max_history: int = option(3, help="most recent rated items in a prompt")
    max_review_tokens: int = option(6, help="tokens kept of each review text")
    max_completion_tokens: int = option(64, help="budget of an answer, in tokens")
    rating_low: float = option(1.0, help="lowest rating")
    rating_high: float = option(5.0, help="highest rating")
    measured_prompts: int = option(
        256, help="validation prompts on which the starting format rate is measured"
    )
    checkpoint_every: int = option(100, help="steps between checkpoints, with --checkpoint-root")
    seed: int = option(42, help="of tokenizer, weights, texts and sampling")

    def __post_init__(self) -> None:
        """Refuse shares that are none and sizes that hold nothing."""
        for name in ("format_rate", "reading_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        for name in ("steps", "batch_size", "max_completion_tokens", "measured_prompts", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.learning_rate <= 0:
            raise UserError(f"learning_rate is {self.learning_rate}; it must be above 0")
        self.scale, self.shape, self.prompt  # noqa: B018  each checks its own part

    @property
    def scale(self) -> RatingScale:
        """Ratings that may be given."""
        return RatingScale(self.rating_low, self.rating_high)

    @property
    def shape(self) -> StandInShape:
        """Size of the stand-in."""
        context = self.max_prompt_tokens + 2 * self.max_completion_tokens
        return StandInShape(self.hidden_size, self.layers, self.heads, self.vocabulary, context)

    @property
    def prompt(self) -> RatingPromptSettings:
        """How the stand-in is asked."""
        return RatingPromptSettings(
            "compact", self.max_prompt_tokens, self.max_history, self.max_review_tokens
        )


@dataclass(frozen=True, kw_only=True)
class RatingGRPOConfig:
    """Settings of the rating GRPO; fields left empty come from the profile."""

    profile: str = option("default", help="where empty fields come from", choices=tuple(PROFILES))
    backbone: str | None = option(None, help="directory or hub id to start from, where no --model is given")
    learning_rate: float | None = option(None, help="AdamW's rate; 1e-3 default, 2e-6 paper")
    steps: int | None = option(None, help="optimiser steps; 0 for --epochs; 100 default, 0 paper")
    epochs: int = option(1, help="passes over the training samples where steps is 0")
    prompts_per_step: int | None = option(None, help="prompts an optimiser step; 8 default, 16 paper")
    group_size: int = option(8, help="rollouts a prompt")
    micro_batch: int = option(0, help="completions a forward pass; 0 for all of a step at once")
    temperature: float = option(1.0, help="of the rollouts")
    beta: float = option(0.0, help="KL coefficient against the starting model; 0 keeps no reference")
    epsilon: float = option(0.2, help="PPO clip")
    loss: str = option("grpo", help="trl's loss_type", choices=("grpo", "dapo", "dr_grpo", "bnpo"))
    scale_rewards: str = option(
        "group", help="what the advantage is divided by", choices=("group", "batch", "none")
    )
    mask_truncated: bool = option(True, help="leave answers that the budget cut off out of the loss")
    max_grad_norm: float = option(1.0, help="gradient clip")
    warmup_steps: int = option(5, help="steps of linear warm-up")
    schedule: str = option(
        "linear", help="of the rate after warm-up", choices=("linear", "cosine", "constant")
    )
    max_completion_tokens: int | None = option(None, help="budget of an answer; 64 default, 1024 paper")
    reward_valid: float = option(0.5, help="format reward of a valid answer")
    reward_invalid: float = option(-0.5, help="format reward of anything else")
    max_error: float = option(4.0, help="error at which the answer reward is 0")
    rating_low: float = option(1.0, help="lowest rating, for a bare backbone")
    rating_high: float = option(5.0, help="highest rating, for a bare backbone")
    prompt_style: str | None = option(
        None, help="wording; empty for the model's own", choices=(None, *STYLES)
    )
    max_prompt_tokens: int | None = option(None, help="budget of a prompt; empty for the model's own")
    max_history: int | None = option(None, help="rated items shown; empty for the model's own")
    max_review_tokens: int | None = option(None, help="tokens of each review; empty for the model's own")
    max_description_tokens: int | None = option(
        None, help="tokens of the description; empty for the model's own"
    )
    hidden_means: float | None = option(
        None, help="share of prompts trained on with the user's mean 'unknown', and the item's; 0.25, paper 0"
    )
    lora_rank: int = option(0, help="rank of LoRA adapters on every linear layer; 0 trains all weights")
    lora_alpha: int = option(32, help="LoRA's scale")
    gradient_checkpointing: bool = option(False, help="recompute activations in backward, for large models")
    dtype: str = option("auto", help="of the weights", choices=("auto", "float32", "bfloat16"))
    vllm: str = option(
        "off", help="rollouts by vLLM, where a GPU and vLLM are", choices=("off", "colocate", "server")
    )
    vllm_url: str = option("", help="base URL of the vLLM server, for vllm=server")
    measured_prompts: int = option(
        256, help="validation prompts on which validity is measured before and after"
    )
    checkpoint_every: int = option(20, help="steps between checkpoints, with --checkpoint-root")
    seed: int = option(42, help="of sample order and rollouts")

    def __post_init__(self) -> None:
        """Fill in the profile and refuse what cannot be trained."""
        if self.profile not in PROFILES:
            raise UserError(f"profile is {self.profile!r}; allowed: {', '.join(PROFILES)}")
        for name, value in PROFILES[self.profile].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, least in (
            ("steps", 0), ("epochs", 1), ("prompts_per_step", 1), ("group_size", 2), ("micro_batch", 0),
            ("max_completion_tokens", 1), ("lora_rank", 0), ("measured_prompts", 1), ("checkpoint_every", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.learning_rate is None or self.learning_rate <= 0:
            raise UserError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if not 0 <= (self.hidden_means or 0.0) <= 1:
            raise UserError(f"hidden_means is {self.hidden_means}; it must be between 0 and 1")
        if (self.vllm == "server") != bool(self.vllm_url):
            raise UserError(
                f"vllm is {self.vllm!r} and vllm_url is {self.vllm_url!r}; a server needs its URL"
            )
        if self.temperature <= 0:
            raise UserError(f"temperature is {self.temperature}; rollouts must differ, so it must be above 0")
        if self.micro_batch and self.completions_per_step % self.micro_batch:
            raise UserError(
                f"micro_batch is {self.micro_batch}; it must divide prompts_per_step × group_size = "
                f"{self.completions_per_step}"
            )
        _ = self.reward

    @property
    def completions_per_step(self) -> int:
        """Rollouts of one optimiser step."""
        return int(self.prompts_per_step or 0) * self.group_size

    @property
    def reward(self) -> RatingReward:
        """The reward's constants, on the configured scale."""
        return RatingReward(self.reward_valid, self.reward_invalid, self.max_error)

    @property
    def prompt_overrides(self) -> dict[str, Any]:
        """Prompt settings that were given; ``None`` where the model's own hold."""
        return prompt_overrides(self)


@dataclass(frozen=True, kw_only=True)
class ColdStartConfig:
    """Settings of RecOne's supervised cold start on reasoning traces."""

    backbone: str | None = option(None, help="directory or hub id to start from, where no --model is given")
    learning_rate: float = option(1e-3, help="AdamW's peak rate; 1e-5 suits an instruct model of 0.5-7 B")
    epochs: int = option(2, help="passes over the traces")
    batch_size: int = option(16, help="traces an optimiser step")
    micro_batch: int = option(0, help="traces a forward pass; 0 for all of a step at once")
    max_traces: int = option(0, help="use this many of the traces, drawn by seed; 0 for all")
    max_error: float = option(0.5, help="refuse traces whose rating is further from the truth")
    warmup_share: float = option(0.05, help="share of the steps in linear warm-up, then cosine")
    max_completion_tokens: int = option(
        0, help="budget of an answer; 0 for the model's own, or the longest trace"
    )
    rating_low: float = option(1.0, help="lowest rating, for a bare backbone")
    rating_high: float = option(5.0, help="highest rating, for a bare backbone")
    prompt_style: str | None = option(
        None, help="wording; empty for the model's own", choices=(None, *STYLES)
    )
    max_prompt_tokens: int | None = option(None, help="budget of a prompt; empty for the model's own")
    max_history: int | None = option(None, help="rated items shown; empty for the model's own")
    max_review_tokens: int | None = option(None, help="tokens of each review; empty for the model's own")
    max_description_tokens: int | None = option(
        None, help="tokens of the description; empty for the model's own"
    )
    lora_rank: int = option(0, help="rank of LoRA adapters on every linear layer; 0 trains all weights")
    lora_alpha: int = option(32, help="LoRA's scale")
    gradient_checkpointing: bool = option(False, help="recompute activations in backward, for large models")
    dtype: str = option("auto", help="of the weights", choices=("auto", "float32", "bfloat16"))
    measured_prompts: int = option(
        256, help="validation prompts on which validity is measured before and after"
    )
    checkpoint_every: int = option(20, help="steps between checkpoints, with --checkpoint-root")
    seed: int = option(42, help="of the order of traces")

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for name, least in (
            ("epochs", 1), ("batch_size", 1), ("micro_batch", 0), ("max_traces", 0), ("lora_rank", 0),
            ("max_completion_tokens", 0), ("measured_prompts", 1), ("checkpoint_every", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.learning_rate <= 0:
            raise UserError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise UserError(
                f"micro_batch is {self.micro_batch}; it must divide batch_size = {self.batch_size}"
            )

    @property
    def prompt_overrides(self) -> dict[str, Any]:
        """Prompt settings that were given; ``None`` where the model's own hold."""
        return prompt_overrides(self)


def prompt_overrides(config: Any) -> dict[str, Any]:
    """Prompt settings that a configuration gives; ``None`` where the model's own hold."""
    names = ("max_prompt_tokens", "max_history", "max_review_tokens", "max_description_tokens")
    return {"style": config.prompt_style, **{name: getattr(config, name) for name in names}}
