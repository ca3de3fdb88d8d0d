"""How titles are decoded and served: beams, scoring rule, assistant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

EXACT = "exact"
ASSISTED = ("d3", "d3-catalogue")
"""Hosts that mix a title model with an ID-based assistant."""


@dataclass(frozen=True)
class DecodingOptions:
    """How a model is to be served; ID-based models read only the name.

    Attributes:
        name: for tables; ``None``: the model's system.
        beam_width: beams of a title model, or ``exact``.
        host: ``bigrec`` (length-normalised), ``catalogue`` (the title's probability among the catalogue's),
            or one of :data:`ASSISTED` (no length normalisation, with an assistant).
        assistant_dir: assisted: model directory of the ID-based assistant.
        alpha: assisted: weight of the language model, 1 − alpha of the assistant.
    """

    name: str | None = None
    beam_width: int | str = 10
    host: str = "bigrec"
    assistant_dir: Path | None = None
    alpha: float = 0.9
