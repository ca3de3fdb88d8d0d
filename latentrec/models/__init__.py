"""Recommenders as modules: LatentR³, sequential encoders, popularity; and what a model directory holds."""

from latentrec.models.model_directory import MODEL_JSON, ModelInfo, read_model
from latentrec.models.recommender import Ranking, Recommender

__all__ = ["MODEL_JSON", "ModelInfo", "Ranking", "Recommender", "read_model"]
