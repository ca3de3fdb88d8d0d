"""Recommenders as modules: LatentR³, sequential encoders, popularity; and what a model directory holds."""

from latentrec.models.model_directory import (
    ModelInfo,
    read_curve,
    read_model,
    write_curve,
)
from latentrec.models.recommender import Ranking, Recommender

__all__ = [
    "ModelInfo",
    "Ranking",
    "Recommender",
    "read_curve",
    "read_model",
    "write_curve",
]
