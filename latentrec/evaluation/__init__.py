"""Scoring of models on a split, slices, the promotion decision, the report."""

from latentrec.evaluation.config import Champion, EvaluateConfig
from latentrec.evaluation.gate import GateDecision, decide
from latentrec.evaluation.run import evaluate

__all__ = ["Champion", "EvaluateConfig", "GateDecision", "decide", "evaluate"]
