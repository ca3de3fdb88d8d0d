"""Scoring of models on a split, slices, the promotion decision, the report.

``evaluate`` is imported when it is first used: steps without torch read the gate's decision too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latentrec.evaluation.evaluate_config import Champion, EvaluateConfig
from latentrec.evaluation.gate_decision import GateDecision

if TYPE_CHECKING:
    from latentrec.evaluation.runner import evaluate

__all__ = ["Champion", "EvaluateConfig", "GateDecision", "evaluate"]


def __getattr__(name: str) -> Any:
    if name != "evaluate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from latentrec.evaluation.runner import evaluate

    return evaluate
