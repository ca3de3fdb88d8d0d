"""What an evaluation found, in memory: the input of every report."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from latentrec.catalog import Catalogue
from latentrec.data import Dataset, Samples
from latentrec.decoding import DecodingOptions
from latentrec.evaluation.evaluate_config import EvaluateConfig
from latentrec.evaluation.gate_decision import GateDecision
from latentrec.evaluation.ranking.cost import Cost
from latentrec.evaluation.ranking.mixture import AlphaChoice
from latentrec.evaluation.ranking.scoring import ModelScores
from latentrec.metrics import Interval
from latentrec.models import ModelInfo


@dataclass(frozen=True)
class Evaluation:
    """Everything that the report shows; ``models`` in the order of the tables.

    ``served_as`` is how each model's lists were made, ``alphas`` how the weights of mixtures were chosen,
    ``warnings`` what a reader must know before the figures.
    """

    config: EvaluateConfig
    dataset: Dataset
    catalogue: Catalogue
    samples: Samples
    models: list[ModelScores]
    infos: dict[str, ModelInfo]
    table: dict[str, dict[str, Interval]]
    comparisons: list[dict[str, Any]]
    slices: list[dict[str, Any]]
    costs: dict[str, Cost]
    gate: GateDecision
    baseline: str
    champion: str | None
    served_as: dict[str, DecodingOptions] = field(default_factory=dict)
    alphas: dict[str, AlphaChoice] = field(default_factory=dict)
    assistant: str | None = None
    warnings: list[str] = field(default_factory=list)


def file_name(model: str) -> str:
    """A model's name as it stands in ``predictions_<model>.parquet``."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", model)
