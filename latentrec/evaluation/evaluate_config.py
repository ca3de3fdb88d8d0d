"""What an evaluation is asked to do, and who is champion now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from latentrec.core import Config
from latentrec.core.config import LARGEST, NonNegativeFloat, NonNegativeInt, OneOf, PositiveInt, Seed, Share
from latentrec.data import SPLITS
from latentrec.decoding.options import DECODINGS, DEFAULT_DECODING, DTYPES, EXACT, DecodingOptions
from latentrec.evaluation.gate_decision import FLOORS

KS = (1, 5, 10)
MOST_BEAMS = 1000
"""Lists have ten items; beyond this the beams of a batch of users fill any memory."""


class EvaluateConfig(Config):
    """Settings of :func:`latentrec.evaluation.evaluate`."""

    step_name: ClassVar[str] = "evaluate"

    split: Annotated[str, OneOf(*SPLITS)] = Field("test", description="the split that is evaluated")
    challenger: str | None = Field(
        None, description="name of the model that may become champion (default: the last --model)"
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
    decoding: Annotated[str, OneOf(*DECODINGS)] = Field(
        DEFAULT_DECODING,
        description="score of a title: catalogue, its log-probability among the catalogue's titles; bigrec, "
        "its mean log-probability a token, as published; d3, mixed with an assistant's; d3-catalogue, both",
    )
    dtype: Annotated[str, OneOf(*DTYPES)] = Field(
        DTYPES[0],
        description="weights of the title models in the evaluation and when the model is served; bfloat16: "
        "half the memory, and faster on processors that compute in it",
    )
    assistant: str | None = Field(
        None,
        description="mixtures: name of the --model whose item scores assist the decoding (default: the "
        "sasrec model; without one the title models rank alone)",
    )
    alpha: Share | None = Field(
        None,
        description="mixtures: weight of the language model against the assistant, 0 to 1; 1: the language "
        "model alone (default: chosen on validation for each model)",
    )
    alpha_samples: PositiveInt = Field(300, description="validation samples that alpha is chosen on, at most")
    exclude_history: bool = Field(
        True,
        description="leave out each user's own items, in the evaluation and when the model is served (papers "
        "keep them: buyers do come back)",
    )
    sampled_negatives: NonNegativeInt = Field(
        0,
        description="rank the target among this many sampled items instead of the whole catalogue, for "
        "comparison with papers that do; nothing is promoted on such figures (0: the whole catalogue)",
    )
    floor: Annotated[str, OneOf(*FLOORS)] = Field(
        "strongest",
        description="baselines that the challenger must not be below: strongest, any of the run; popularity, "
        "only popularity (ratings: the constants and biases)",
    )
    min_readable_share: Share = Field(
        0.95, description="rating models: least share of answers that can be read, for promotion"
    )
    max_users: PositiveInt | None = Field(
        None,
        description="evaluate a seeded subset of this many users, the same for all models (default: all)",
    )
    batch_size: PositiveInt = Field(64, description="users decoded together")
    cost_samples: NonNegativeInt = Field(
        24, description="users whose latency is measured one by one; 0 skips the cost table"
    )
    other_latent_samples: NonNegativeInt = Field(
        1000,
        description="samples that title models with latents also rank with another user's latent (0: none)",
    )
    n_resamples: Annotated[int, Field(ge=100, le=LARGEST)] = Field(
        2000, description="bootstrap resamples and permutations"
    )
    example_users: NonNegativeInt = Field(
        10, description="users shown in the report with history, lists and truth"
    )
    seed: Seed = Field(42, description="seed of resampling, subsets and examples")

    @field_validator("beam_width")
    @classmethod
    def _check_beams(cls, value: str) -> str:
        if value != EXACT and not (value.isdecimal() and 0 < len(value) < 6 and 0 < int(value) <= MOST_BEAMS):
            raise ValueError(f"expected 1 to {MOST_BEAMS:,} or '{EXACT}'")
        return value

    def decoding_options(self, alpha: float) -> DecodingOptions:
        """How title models are decoded in this run, with the weight chosen for one of them."""
        width = self.beam_width
        return DecodingOptions(
            decoding=self.decoding,
            beam_width=int(width) if width.isdecimal() else width,
            alpha=alpha,
            exclude_history=self.exclude_history,
            dtype=self.dtype,
        )


@dataclass(frozen=True)
class Champion:
    """The model that has the alias ``champion`` now, pulled from the registry by the caller.

    Attributes:
        directory: its model directory.
        label: how it is called in tables and in the gate's reason, e.g. ``latentr3 v3``.
        version: its registered version: what the alias is expected to point at when it is moved.
        served: how its users get it decoded, and so how it is scored; ``None``: as the run says.
        assistant_dir: model directory of the assistant that it is served with.
    """

    directory: Path
    label: str = "champion"
    version: str | None = None
    served: DecodingOptions | None = None
    assistant_dir: Path | None = None
