"""Settings of ``pretrain-rating``, which makes the placeholder model that rating runs without a hub use."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from latentrec.core.config import OPERATIONAL, PositiveFloat, PositiveInt, Probability, Seed
from latentrec.models.rating.placeholder_model import PlaceholderShape
from latentrec.prompts.rating_prompt import INSTRUCT_SETTINGS, RatingPromptSettings
from latentrec.training.rating.prompt_config import PromptConfig

PRESET = "tiny"
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


class PretrainRatingConfig(PromptConfig):
    """Settings of the pre-training; sizes are those of the small preset."""

    step_name: ClassVar[str] = "pretrain_rating"

    backbone: str = Field(
        PRESET, description="'tiny' pre-trains the placeholder; a directory or hub id is passed on as is"
    )
    format_rate: Probability = Field(0.3, description="share of rating prompts answered in the format")
    reading_share: Probability = Field(
        0.2, description="share of prompts that ask for something to be read out"
    )
    max_steps: PositiveInt = Field(800, description="optimizer steps")
    batch_size: PositiveInt = Field(16, description="texts a step")
    learning_rate: PositiveFloat = Field(0.006, description="peak rate, cosine after 5 % warm-up")
    hidden_size: PositiveInt = Field(96, description="width of the placeholder")
    layers: PositiveInt = Field(2, description="decoder layers")
    heads: PositiveInt = Field(4, description="attention heads")
    vocabulary: PositiveInt = Field(1000, description="entries of its tokenizer")
    max_completion_tokens: PositiveInt | None = Field(
        None, description="budget of an answer, in tokens (default 64; a backbone's own, else 256)"
    )
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
    def shape(self) -> PlaceholderShape:
        """Layers, width, heads and vocabulary of the placeholder model."""
        context = int(self.max_prompt_tokens or 0) + 2 * int(self.max_completion_tokens or 0)
        return PlaceholderShape(self.hidden_size, self.layers, self.heads, self.vocabulary, context)

    @property
    def prompt(self) -> RatingPromptSettings:
        """How the placeholder is asked."""
        given = {name: value for name, value in self.prompt_overrides.items() if value is not None}
        return replace(INSTRUCT_SETTINGS, **given)
