"""Configuration of ``lares-depth``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from latentrec.core import Config
from latentrec.core.config import NonNegativeInt, PositiveInt, Seed


class DepthConfig(Config):
    """Settings of the depth study."""

    step_name: ClassVar[str] = "lares_depth"

    depths: tuple[PositiveInt, ...] = Field(
        (), description="numbers of steps (default: 0.15 to 4 times the model's mean)"
    )
    state_seeds: PositiveInt = Field(5, description="initial states drawn for each depth")
    k: PositiveInt = Field(10, description="length of the lists evaluated")
    max_samples: NonNegativeInt = Field(5000, description="samples evaluated at most, a seeded draw (0: all)")
    seed: Seed = Field(42, description="of that draw and of the bootstrap")
