"""Settings of the rating steps: pre-training of the placeholder, cold start, GRPO."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from latentrec.core import Config, UserError
from latentrec.core.config import (
    LARGEST,
    OPERATIONAL,
    BoundedFloat,
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveFloat,
    PositiveInt,
    Probability,
    Seed,
    Share,
)
from latentrec.models.rating.placeholder_model import PlaceholderShape
from latentrec.prompts.rating_format import RatingScale
from latentrec.prompts.rating_prompt import (
    FEW_SHOT,
    INSTRUCT_SETTINGS,
    STYLES,
    RatingPromptSettings,
)
from latentrec.training.rating.rewards import RatingReward

PRESET = "tiny"
FewShot = Annotated[int, Field(ge=min(FEW_SHOT), le=max(FEW_SHOT))]
PLACEHOLDER_PROMPT: dict[str, Any] = {
    "prompt_style": "compact",
    "max_prompt_tokens": 144,
    "max_history": 3,
    "max_review_tokens": 6,
    "max_description_tokens": 0,
    "few_shot": 0,
    "max_completion_tokens": 64,
}
"""How the placeholder is asked where nothing else is said; every token costs it time."""
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


class PretrainRatingConfig(Config):
    """Settings of the pre-training; sizes are those of the small preset."""

    step_name: ClassVar[str] = "pretrain_rating"

    backbone: str = Field(
        PRESET, description="'tiny' pre-trains the placeholder; a directory or hub id is passed on as is"
    )
    format_rate: Probability = Field(0.3, description="share of rating prompts answered in the format")
    reading_share: Probability = Field(
        0.2, description="share of prompts that ask for something to be read out"
    )
    steps: PositiveInt = Field(800, description="optimizer steps")
    batch_size: PositiveInt = Field(16, description="texts a step")
    learning_rate: PositiveFloat = Field(0.006, description="peak rate, cosine after 5 % warm-up")
    hidden_size: PositiveInt = Field(96, description="width of the placeholder")
    layers: PositiveInt = Field(2, description="decoder layers")
    heads: PositiveInt = Field(4, description="attention heads")
    vocabulary: PositiveInt = Field(1000, description="entries of its tokenizer")
    prompt_style: Annotated[str, OneOf(*STYLES)] | None = Field(
        None, description="wording of a prompt (default compact; a backbone's own, else full)"
    )
    max_prompt_tokens: PositiveInt | None = Field(
        None, description="budget of a prompt, in tokens (default 144; a backbone's own, else 2048)"
    )
    max_history: NonNegativeInt | None = Field(
        None, description="most recent rated items in a prompt (default 3; a backbone's own, else 10)"
    )
    max_review_tokens: NonNegativeInt | None = Field(
        None, description="tokens kept of each review text (default 6; a backbone's own, else 96)"
    )
    max_description_tokens: NonNegativeInt | None = Field(
        None, description="tokens kept of the target's description (default 0; a backbone's own, else 128)"
    )
    few_shot: FewShot | None = Field(
        None, description="worked examples before the question, 0 or 1 (default 0; a backbone's own)"
    )
    max_completion_tokens: PositiveInt | None = Field(
        None, description="budget of an answer, in tokens (default 64; a backbone's own, else 256)"
    )
    rating_low: BoundedFloat = Field(1.0, description="lowest rating of the scale")
    rating_high: BoundedFloat = Field(5.0, description="highest rating of the scale")
    measured_prompts: PositiveInt = Field(
        256, description="validation prompts on which the starting format rate is measured"
    )
    save_steps: Annotated[PositiveInt, OPERATIONAL] = Field(
        100, description="steps between checkpoints, with --checkpoint-root"
    )
    seed: Seed = Field(42, description="seed of tokenizer, weights, texts and sampling")

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Fill what the placeholder decides; each part checks its own."""
        if self.backbone == PRESET:
            self.fill(PLACEHOLDER_PROMPT)
        self.scale, self.shape, self.prompt  # noqa: B018
        return self

    @property
    def scale(self) -> RatingScale:
        """Ratings that may be given."""
        return RatingScale(self.rating_low, self.rating_high)

    @property
    def shape(self) -> PlaceholderShape:
        """Layers, width, heads and vocabulary of the placeholder model."""
        context = int(self.max_prompt_tokens or 0) + 2 * int(self.max_completion_tokens or 0)
        return PlaceholderShape(self.hidden_size, self.layers, self.heads, self.vocabulary, context)

    @property
    def prompt(self) -> RatingPromptSettings:
        """How the placeholder is asked."""
        given = {name: value for name, value in prompt_overrides(self).items() if value is not None}
        return replace(INSTRUCT_SETTINGS, **given)


class RatingGRPOConfig(Config):
    """Settings of the rating GRPO; fields left empty come from the profile."""

    step_name: ClassVar[str] = "rating_grpo"

    profile: Annotated[str, OneOf(*tuple(PROFILES))] = Field(
        "default", description="where empty fields come from"
    )
    backbone: str | None = Field(
        None, description="directory or hub id to start from, where no --model is given"
    )
    learning_rate: PositiveFloat | None = Field(None, description="AdamW's rate; 1e-3 default, 2e-6 paper")
    steps: NonNegativeInt | None = Field(
        None, description="optimizer steps; 0 for --num-train-epochs; 100 default, 0 paper"
    )
    num_train_epochs: PositiveInt = Field(1, description="passes over the training samples where steps is 0")
    prompts_per_step: PositiveInt | None = Field(
        None, description="prompts an optimizer step; 8 default, 16 paper"
    )
    num_generations: Annotated[int, Field(ge=2, le=LARGEST)] = Field(8, description="rollouts a prompt")
    per_device_train_batch_size: NonNegativeInt = Field(
        0, description="completions a forward pass; 0 for all of a step at once"
    )
    temperature: PositiveFloat = Field(1.0, description="sampling temperature of the rollouts")
    beta: NonNegativeFloat = Field(
        0.0, description="KL coefficient against the starting model; 0 keeps no reference"
    )
    epsilon: NonNegativeFloat = Field(0.2, description="clipping range of the probability ratio")
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = Field("grpo", description="trl's loss_type")
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="what the advantage is divided by"
    )
    mask_truncated: bool = Field(True, description="leave answers that the budget cut off out of the loss")
    max_grad_norm: NonNegativeFloat = Field(1.0, description="gradients are clipped to this norm; 0: not")
    warmup_steps: NonNegativeInt = Field(5, description="steps of linear warm-up")
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="schedule of the learning rate after warm-up"
    )
    max_completion_tokens: PositiveInt | None = Field(
        None, description="budget of an answer; 64 default, 1024 paper"
    )
    reward_valid: BoundedFloat = Field(0.5, description="format reward of a valid answer")
    reward_invalid: BoundedFloat = Field(-0.5, description="format reward of anything else")
    max_error: BoundedFloat = Field(4.0, description="error at which the answer reward is 0")
    rating_low: BoundedFloat = Field(1.0, description="lowest rating, for a bare backbone")
    rating_high: BoundedFloat = Field(5.0, description="highest rating, for a bare backbone")
    prompt_style: Annotated[str, OneOf(*STYLES)] | None = Field(
        None, description="wording; empty for the model's own"
    )
    max_prompt_tokens: PositiveInt | None = Field(
        None, description="budget of a prompt; empty for the model's own"
    )
    max_history: NonNegativeInt | None = Field(
        None, description="rated items shown; empty for the model's own"
    )
    max_review_tokens: NonNegativeInt | None = Field(
        None, description="tokens of each review; empty for the model's own"
    )
    max_description_tokens: NonNegativeInt | None = Field(
        None, description="tokens of the description; empty for the model's own"
    )
    few_shot: FewShot | None = Field(
        None, description="worked examples before the question, 0 or 1; empty for the model's own"
    )
    hidden_means: Share | None = Field(
        None,
        description="share of prompts trained on with the user's mean 'unknown', and the item's; 0.25, "
        "paper 0",
    )
    lora_rank: NonNegativeInt = Field(
        0, description="rank of LoRA adapters on every linear layer; 0 trains all weights"
    )
    lora_alpha: PositiveInt = Field(32, description="scale of the adapters is lora_alpha / lora_rank")
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in backward, for large models"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="data type of the weights")
    vllm: Literal["off", "colocate", "server"] = Field(
        "off", description="rollouts by vLLM, where a GPU and vLLM are"
    )
    vllm_url: str = Field("", description="base URL of the vLLM server, for vllm=server")
    measured_prompts: PositiveInt = Field(
        256, description="validation prompts on which validity is measured before and after"
    )
    save_steps: Annotated[PositiveInt, OPERATIONAL] = Field(
        20, description="steps between checkpoints, with --checkpoint-root"
    )
    seed: Seed = Field(42, description="seed of sample order and rollouts")

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        """Fill in the profile and refuse what cannot be trained."""
        self.fill(PROFILES[self.profile])
        if (self.vllm == "server") != bool(self.vllm_url):
            raise ValueError(
                f"vllm is {self.vllm!r} and vllm_url is {self.vllm_url!r}; a server needs its URL"
            )
        if self.per_device_train_batch_size and self.completions_per_step % self.per_device_train_batch_size:
            raise ValueError(
                f"per_device_train_batch_size is {self.per_device_train_batch_size}; it must divide "
                f"prompts_per_step × num_generations = {self.completions_per_step}"
            )
        _ = self.reward
        return self

    def check_world(self, processes: int) -> None:
        """Refuse a step that cannot be dealt out evenly.

        Raises:
            UserError: the completions of a step are no multiple of processes × a forward pass.
        """
        what = f"prompts_per_step x num_generations = {self.completions_per_step}"
        check_share(
            "rating_grpo", what, self.completions_per_step, self.per_device_train_batch_size, processes
        )

    @property
    def completions_per_step(self) -> int:
        """Rollouts of one optimizer step."""
        return int(self.prompts_per_step or 0) * self.num_generations

    @property
    def reward(self) -> RatingReward:
        """The reward's constants, on the configured scale."""
        return RatingReward(self.reward_valid, self.reward_invalid, self.max_error)

    @property
    def prompt_overrides(self) -> dict[str, Any]:
        """Prompt settings that were given; ``None`` where the model's own hold."""
        return prompt_overrides(self)


class ColdStartConfig(Config):
    """Settings of RecOne's supervised cold start on reasoning traces."""

    step_name: ClassVar[str] = "cold_start_sft"

    backbone: str | None = Field(
        None, description="directory or hub id to start from, where no --model is given"
    )
    learning_rate: PositiveFloat = Field(
        0.001, description="AdamW's peak rate; 1e-5 suits an instruct model of 0.5-7 B"
    )
    num_train_epochs: PositiveInt = Field(2, description="passes over the traces")
    batch_size: PositiveInt = Field(16, description="traces an optimizer step")
    per_device_train_batch_size: NonNegativeInt = Field(
        0, description="traces a forward pass; 0 for all of a step at once"
    )
    max_error: NonNegativeFloat = Field(
        0.5, description="refuse traces whose rating is further from the truth"
    )
    warmup_ratio: Share = Field(0.05, description="share of the steps in linear warm-up, then cosine")
    max_completion_tokens: NonNegativeInt = Field(
        0, description="budget of an answer; 0 for the model's own, or the longest trace"
    )
    rating_low: BoundedFloat = Field(1.0, description="lowest rating, for a bare backbone")
    rating_high: BoundedFloat = Field(5.0, description="highest rating, for a bare backbone")
    prompt_style: Annotated[str, OneOf(*STYLES)] | None = Field(
        None, description="wording; empty for the model's own"
    )
    max_prompt_tokens: PositiveInt | None = Field(
        None, description="budget of a prompt; empty for the model's own"
    )
    max_history: NonNegativeInt | None = Field(
        None, description="rated items shown; empty for the model's own"
    )
    max_review_tokens: NonNegativeInt | None = Field(
        None, description="tokens of each review; empty for the model's own"
    )
    max_description_tokens: NonNegativeInt | None = Field(
        None, description="tokens of the description; empty for the model's own"
    )
    few_shot: FewShot | None = Field(
        None, description="worked examples before the question, 0 or 1; empty for the model's own"
    )
    lora_rank: NonNegativeInt = Field(
        0, description="rank of LoRA adapters on every linear layer; 0 trains all weights"
    )
    lora_alpha: PositiveInt = Field(32, description="scale of the adapters is lora_alpha / lora_rank")
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in backward, for large models"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="data type of the weights")
    measured_prompts: PositiveInt = Field(
        256, description="validation prompts on which validity is measured before and after"
    )
    save_steps: Annotated[PositiveInt, OPERATIONAL] = Field(
        20, description="steps between checkpoints, with --checkpoint-root"
    )
    seed: Seed = Field(42, description="seed of the order of traces")

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what cannot be trained."""
        if self.per_device_train_batch_size and self.batch_size % self.per_device_train_batch_size:
            raise ValueError(
                f"per_device_train_batch_size is {self.per_device_train_batch_size}; it must divide "
                f"batch_size = {self.batch_size}"
            )
        return self

    def check_world(self, processes: int) -> None:
        """Refuse a batch that cannot be dealt out evenly.

        Raises:
            UserError: ``batch_size`` is no multiple of processes × a forward pass.
        """
        what = f"batch_size {self.batch_size}"
        check_share("cold_start_sft", what, self.batch_size, self.per_device_train_batch_size, processes)

    @property
    def prompt_overrides(self) -> dict[str, Any]:
        """Prompt settings that were given; ``None`` where the model's own hold."""
        return prompt_overrides(self)


def check_share(step: str, what: str, total: int, per_device: int, processes: int) -> None:
    """Refuse a batch of ``total`` rows that ``processes`` cannot share, ``per_device`` (0: all) at once."""
    parts = processes * (per_device or 1)
    if total % parts:
        each = f" x per_device_train_batch_size {per_device}" if per_device else ""
        raise UserError(
            f"{step}: {what} cannot be shared evenly by {processes} processes{each}; "
            f"use a multiple of {parts}",
            code="config.conflict",
        )


def prompt_overrides(config: Any) -> dict[str, Any]:
    """Prompt settings that a configuration gives; ``None`` where the model's own hold."""
    names = ("max_prompt_tokens", "max_history", "max_review_tokens", "max_description_tokens", "few_shot")
    return {"style": config.prompt_style, **{name: getattr(config, name) for name in names}}
