"""Configuration of an evaluation, and the current champion that the challenger is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from latentrec.core import Config
from latentrec.core.config import LARGEST, NonNegativeFloat, NonNegativeInt, OneOf, PositiveInt, Seed, Share
from latentrec.data import SPLITS
from latentrec.decoding.options import ASSISTED, DecodingOptions

KS = (1, 5, 10)
EXACT = "exact"
HOSTS = ("bigrec", "catalogue", *ASSISTED)


class EvaluateConfig(Config):
    """Settings of :func:`latentrec.evaluation.evaluate`."""

    step_name: ClassVar[str] = "evaluate"

    split: Annotated[str, OneOf(*SPLITS)] = Field("test", description="the split that is judged")
    challenger: str | None = Field(
        None, description="name of the model that may become champion (default: the last --model)"
    )
    baseline: str | None = Field(
        None,
        description="name of the model that comparison.json tests the others against (default: the backbone "
        "without reasoning, else popularity)",
    )
    metric: Literal["ndcg_at_10", "ndcg_at_5", "hr_at_10", "hr_at_5", "mrr_at_10"] = Field(
        "ndcg_at_10", description="metric of the promotion gate"
    )
    promotion_margin: NonNegativeFloat = Field(
        0.0, description="the challenger must beat the champion by more than this, in units of the metric"
    )
    beam_width: str = Field(
        "10", description="beams of the title models; 'exact' scores every title (small catalogues only)"
    )
    host: Annotated[str, OneOf(*HOSTS)] = Field(
        "catalogue",
        description="decoding of the title models: catalogue, a title's probability among the catalogue's; "
        "bigrec, its mean log-probability a token, as published; d3, mixed with an assistant's; "
        "d3-catalogue, both",
    )
    assistant: str | None = Field(
        None,
        description="d3 hosts: name of the --model whose item scores assist the decoding (default: sasrec)",
    )
    alpha: Share = Field(
        0.9, description="d3 hosts: weight of the language model against the assistant, 0 to 1"
    )
    exclude_history: bool = Field(
        False, description="leave out each user's own items (the papers do not: buyers do come back)"
    )
    max_users: PositiveInt | None = Field(
        None, description="judge a seeded subset of this many users, the same for all models (default: all)"
    )
    batch_size: PositiveInt = Field(64, description="users decoded together")
    cost_samples: NonNegativeInt = Field(
        24, description="users whose latency is measured one by one; 0 skips the cost table"
    )
    chain_of_thought_tokens: NonNegativeInt = Field(
        0, description="also time a written chain of thought of this many tokens before the title (0: do not)"
    )
    n_resamples: Annotated[int, Field(ge=100, le=LARGEST)] = Field(
        2000, description="bootstrap resamples and permutations"
    )
    example_users: NonNegativeInt = Field(
        10, description="users shown in the report with history, lists and truth"
    )
    seed: Seed = Field(42, description="of resampling, subsets and examples")

    @field_validator("beam_width")
    @classmethod
    def _check_beams(cls, value: str) -> str:
        if value != EXACT and not (value.isdigit() and int(value) > 0):
            raise ValueError("expected 1, 2, … or 'exact'")
        return value


@dataclass(frozen=True)
class Champion:
    """The current champion, downloaded from the registry by the caller.

    Attributes:
        directory: its model directory.
        label: how it is called in tables and in the gate's reason, e.g. ``latentr3 v3``.
        version: its registered version: what the alias is expected to point at when it is moved.
        served: how its users get it decoded, and so how it is judged; ``None``: as the run says.
    """

    directory: Path
    label: str = "champion"
    version: str | None = None
    served: DecodingOptions | None = None
