"""How a model makes its lists: one class and one default for evaluation, loading, serving and training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from latentrec.core import UserError

EXACT = "exact"
MIXED = ("d3", "d3-catalogue")
"""Decodings that mix a title model with an ID-based assistant."""
DECODINGS = ("catalogue", "bigrec", *MIXED)
DEFAULT_DECODING = "d3-catalogue"
DEFAULT_BEAM_WIDTH = 10
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How lists are made; ID-based models read only ``exclude_history``.

    Attributes:
        decoding: score of a title: ``catalogue``, its log-probability among the catalogue's titles;
            ``bigrec``, its mean log-probability a token; ``d3``, its log-probability, mixed with an
            assistant's; ``d3-catalogue``, that of ``catalogue``, mixed.
        beam_width: beams of a title model, or ``exact`` (every title is scored).
        alpha: weight of the language model against the assistant in a mixture; at 1, the default, the
            language model ranks alone and no assistant is needed.
        exclude_history: leave out each user's own items.
        dtype: of a title model's weights while it ranks: ``float32``, or ``bfloat16``, half the memory and on
            processors that compute in it (AVX512-BF16, AMX) more speed, for scores of three digits.
    """

    decoding: str = DEFAULT_DECODING
    beam_width: int | str = DEFAULT_BEAM_WIDTH
    alpha: float = 1.0
    exclude_history: bool = True
    dtype: str = DTYPES[0]

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: a value is out of its range.
        """
        if self.decoding not in DECODINGS:
            raise UserError(
                f"decoding is {self.decoding!r}; allowed: {', '.join(DECODINGS)}", code="config.bad_value"
            )
        if self.beam_width != EXACT and not (isinstance(self.beam_width, int) and self.beam_width > 0):
            raise UserError(
                f"beam_width is {self.beam_width!r}, expected a whole number above 0 or 'exact'",
                code="config.bad_value",
            )
        if self.dtype not in DTYPES:
            raise UserError(f"dtype is {self.dtype!r}; allowed: {', '.join(DTYPES)}", code="config.bad_value")
        if not 0.0 <= self.alpha <= 1.0:
            raise UserError(f"alpha is {self.alpha!r}, expected 0 to 1", code="config.bad_value")

    @property
    def is_mixture(self) -> bool:
        """Whether an assistant has a say."""
        return self.decoding in MIXED and self.alpha < 1.0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DecodingOptions:
        """From the configuration of a served model or of an evaluation; absent names take their default.

        Raises:
            UserError: a value is out of its range.
        """
        known = {name: config[name] for name in cls.__dataclass_fields__ if config.get(name) is not None}
        if "beam_width" in known:
            width = str(known["beam_width"])
            known["beam_width"] = int(width) if width.isdecimal() else width
        if "alpha" in known:
            known["alpha"] = float(known["alpha"])
        return cls(**known)

    def to_config(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """In words, for reports."""
        searched = "every title scored" if self.beam_width == EXACT else f"{self.beam_width} beams"
        if self.decoding in MIXED:
            mixed = f", α = {self.alpha:g}" + ("" if self.is_mixture else " (the language model alone)")
        else:
            mixed = ""
        weights = "" if self.dtype == DTYPES[0] else f", {self.dtype} weights"
        return f"{self.decoding}, {searched}{mixed}{weights}"
