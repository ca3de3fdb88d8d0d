"""The steps of RecZero (pre-training, GRPO) and RecOne (traces and a cold start between them) by name.

Configurations are imported at once, the steps (and torch with them) when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from latentrec.training.rating.pretrain_config import PretrainRatingConfig
from latentrec.training.rating.rating_config import ColdStartConfig, RatingGRPOConfig
from latentrec.training.rating.traces import TracesConfig, make_traces

_STEPS = {
    "pretrain_rating": "latentrec.training.rating.pretraining",
    "train_cold_start": "latentrec.training.rating.cold_start",
    "train_rating_grpo": "latentrec.training.rating.rating_grpo",
}

__all__ = [
    "ColdStartConfig",
    "PretrainRatingConfig",
    "RatingGRPOConfig",
    "TracesConfig",
    "make_traces",
    *_STEPS,
]


def __getattr__(name: str) -> Any:
    """Import a step's module on first use."""
    if name in _STEPS:
        return getattr(importlib.import_module(_STEPS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
