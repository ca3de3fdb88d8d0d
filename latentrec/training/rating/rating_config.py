"""Settings of the rating trainers: RecOne's cold start, and GRPO."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from latentrec.core import Config
from latentrec.core.config import (
    LARGEST,
    OPERATIONAL,
    BoundedFloat,
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
)
from latentrec.training.common.world import check_share
from latentrec.training.rating.prompt_config import PromptConfig
from latentrec.training.rating.rewards import RatingReward

PROFILES: dict[str, dict[str, Any]] = {
    "default": {
        "learning_rate": 1e-3,
        "max_steps": 100,
        "prompts_per_step": 8,
        "max_completion_tokens": 64,
        "hidden_means": 0.25,
    },
    "paper": {
        "learning_rate": 2e-6,
        "max_steps": 0,
        "prompts_per_step": 16,
        "max_completion_tokens": 1024,
        "hidden_means": 0.0,
    },
}


class RatingTrainerConfig(PromptConfig):
    """What the two trainers share: the model they start from, how much of it learns, and in what type."""

    backbone: str | None = Field(
        None, description="directory or hub id to start from, where no --model is given"
    )
    lora_rank: NonNegativeInt = Field(
        0, description="rank of LoRA adapters on every linear layer; 0 trains all weights"
    )
    lora_alpha: PositiveInt = Field(32, description="scale of the adapters is lora_alpha / lora_rank")
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in backward, for large models"
    )
    sharding: Annotated[Literal["ddp", "fsdp"], OPERATIONAL] = Field(
        "ddp",
        description="several processes: ddp, each holds all weights; fsdp shares out weights, gradients and "
        "optimizer (FSDP2)",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="data type of the weights")
    measured_prompts: PositiveInt = Field(
        256, description="validation prompts on which validity is measured before and after"
    )
    save_steps: Annotated[PositiveInt, OPERATIONAL] = Field(
        20, description="steps between checkpoints, with --checkpoint-root"
    )
    per_device_train_batch_size: NonNegativeInt = Field(
        0, description="completions, or traces, of a forward pass; 0 for all of a step at once"
    )
    seed: Seed = Field(42, description="seed of the order of samples or traces, and of rollouts")

    def check_passes(self, what: str, rows: int, processes: int) -> None:
        """Refuse a step of ``rows`` that processes and forward passes cannot share (:func:`check_share`)."""
        passes = self.per_device_train_batch_size or 1
        check_share(what, rows, processes, "per_device_train_batch_size", passes)


class RatingGRPOAblation(Config):
    """Variants of GRPO's loss, by trl's names; the defaults are those of RecZero and RecOne."""

    step_name: ClassVar[str] = "rating_grpo.ablation"

    loss_type: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = Field(
        "grpo", description="how the tokens of an answer are weighed"
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="what the advantage is divided by"
    )
    mask_truncated_completions: bool = Field(
        True, description="leave answers that the budget cut off out of the loss"
    )
    epsilon: NonNegativeFloat = Field(0.2, description="clipping range of the probability ratio")


class RatingGRPOConfig(RatingTrainerConfig):
    """Settings of the rating GRPO; fields left empty come from the profile."""

    step_name: ClassVar[str] = "rating_grpo"

    profile: Annotated[str, OneOf(*tuple(PROFILES))] = Field(
        "default", description="where empty fields come from"
    )
    learning_rate: PositiveFloat | None = Field(None, description="AdamW's rate; 1e-3 default, 2e-6 paper")
    max_steps: NonNegativeInt | None = Field(
        None, description="optimizer steps; 0 for --num-train-epochs; 100 default, 0 paper"
    )
    num_train_epochs: PositiveInt = Field(
        1, description="passes over the training samples where max_steps is 0"
    )
    prompts_per_step: PositiveInt | None = Field(
        None, description="prompts an optimizer step; 8 default, 16 paper"
    )
    num_generations: Annotated[int, Field(ge=2, le=LARGEST)] = Field(8, description="rollouts a prompt")
    temperature: PositiveFloat = Field(1.0, description="sampling temperature of the rollouts")
    beta: NonNegativeFloat = Field(
        0.0, description="KL coefficient against the starting model; 0 keeps no reference"
    )
    warmup_steps: NonNegativeInt = Field(5, description="steps of linear warm-up")
    max_completion_tokens: PositiveInt | None = Field(
        None, description="budget of an answer; 64 default, 1024 paper"
    )
    reward_valid: BoundedFloat = Field(0.5, description="format reward of a valid answer")
    reward_invalid: BoundedFloat = Field(-0.5, description="format reward of anything else")
    max_error: BoundedFloat = Field(4.0, description="error at which the answer reward is 0")
    hidden_means: Share | None = Field(
        None,
        description="share of prompts trained on with the user's mean 'unknown', and the item's; 0.25, "
        "paper 0",
    )
    vllm_mode: Literal["off", "colocate", "server"] = Field(
        "off", description="rollouts by vLLM, where a GPU and vLLM are"
    )
    vllm_server_base_url: str = Field("", description="base URL of the vLLM server, for vllm_mode=server")
    ablation: RatingGRPOAblation = Field(default_factory=RatingGRPOAblation)

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        """Fill in the profile and refuse what cannot be trained."""
        self.fill(PROFILES[self.profile])
        if (self.vllm_mode == "server") != bool(self.vllm_server_base_url):
            raise ValueError(
                f"vllm_mode is {self.vllm_mode!r} and vllm_server_base_url is "
                f"{self.vllm_server_base_url!r}; a server needs its URL"
            )
        self.check_world(1)
        _ = self.reward
        return self

    def check_world(self, processes: int) -> None:
        """Refuse a step that processes and forward passes cannot share evenly.

        Raises:
            UserError: the completions of a step are no multiple of processes × a forward pass.
        """
        what = f"rating_grpo: prompts_per_step x num_generations is {self.completions_per_step}"
        self.check_passes(what, self.completions_per_step, processes)

    @property
    def completions_per_step(self) -> int:
        """Rollouts of one optimizer step."""
        return int(self.prompts_per_step or 0) * self.num_generations

    @property
    def reward(self) -> RatingReward:
        """The reward's constants, on the configured scale."""
        return RatingReward(self.reward_valid, self.reward_invalid, self.max_error)


class ColdStartConfig(RatingTrainerConfig):
    """Settings of RecOne's supervised cold start on reasoning traces."""

    step_name: ClassVar[str] = "cold_start_sft"

    learning_rate: PositiveFloat = Field(
        0.001, description="AdamW's peak rate; 1e-5 suits an instruct model of 0.5-7 B"
    )
    num_train_epochs: PositiveInt = Field(2, description="passes over the traces")
    batch_size: PositiveInt = Field(16, description="traces an optimizer step")
    max_error: NonNegativeFloat = Field(
        0.5, description="refuse traces whose rating is further from the truth"
    )
    warmup_steps: NonNegativeFloat = Field(
        0.05, description="steps of linear warm-up, then cosine; below 1 a share of all steps"
    )
    max_completion_tokens: NonNegativeInt = Field(
        0, description="budget of an answer; 0 for the model's own, or the longest trace"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what cannot be trained."""
        self.check_world(1)
        return self

    def warmup_of(self, steps: int) -> int:
        """Steps of warm-up where training takes ``steps``."""
        warmup = self.warmup_steps if self.warmup_steps >= 1 else self.warmup_steps * steps
        return max(1, round(warmup))

    def check_world(self, processes: int) -> None:
        """Refuse a batch that processes and micro-batches cannot share evenly.

        Raises:
            UserError: ``batch_size`` is no multiple of processes × a forward pass.
        """
        self.check_passes(f"cold_start_sft.batch_size is {self.batch_size}", self.batch_size, processes)
