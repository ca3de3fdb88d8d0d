"""Settings that all rating steps share: the scale of the ratings, and how a model is asked for one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from latentrec.core import Config
from latentrec.core.config import BoundedFloat, NonNegativeInt, OneOf, PositiveInt
from latentrec.prompts.rating_format import RatingScale
from latentrec.prompts.rating_prompt import FEW_SHOT, STYLES

FewShot = Annotated[int, Field(ge=min(FEW_SHOT), le=max(FEW_SHOT))]


class ScaleConfig(Config):
    """The scale of the ratings; a model trained here brings its own."""

    rating_low: BoundedFloat = Field(1.0, description="lowest rating of the scale")
    rating_high: BoundedFloat = Field(5.0, description="highest rating of the scale")

    @property
    def scale(self) -> RatingScale:
        """Ratings that may be given."""
        return RatingScale(self.rating_low, self.rating_high)


class PromptConfig(ScaleConfig):
    """How a model is asked; fields left empty are the model's own, see each for a model without any."""

    prompt_style: Annotated[str, OneOf(*STYLES)] | None = Field(
        None, description="wording of a prompt (default: the model's; placeholder compact, backbone full)"
    )
    max_prompt_tokens: PositiveInt | None = Field(
        None,
        description="budget of a prompt, in tokens (default: the model's; placeholder 144, backbone 2048)",
    )
    max_history: NonNegativeInt | None = Field(
        None,
        description="most recent rated items in a prompt (default: the model's; placeholder 3, backbone 10)",
    )
    max_review_tokens: NonNegativeInt | None = Field(
        None,
        description="tokens kept of each review text (default: the model's; placeholder 6, backbone 96)",
    )
    max_description_tokens: NonNegativeInt | None = Field(
        None,
        description="tokens kept of the target's description (default: the model's; placeholder 0, "
        "backbone 128)",
    )
    few_shot: FewShot | None = Field(
        None,
        description="worked examples before the question, 0 or 1 (default: the model's; placeholder 0)",
    )

    @property
    def prompt_overrides(self) -> dict[str, Any]:
        """Prompt settings that were given; ``None`` where the model's own hold."""
        names = ("max_prompt_tokens", "max_history", "max_review_tokens", "max_description_tokens")
        given = {name: getattr(self, name) for name in (*names, "few_shot")}
        return {"style": self.prompt_style, **given}
