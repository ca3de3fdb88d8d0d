"""MLflow: runs, model registry, the served model. The only room that knows MLflow.

Names are imported when they are first used: the served model loads this package in an environment that has
only its own few requirements.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentrec.registry.download import find_champion, previous_dataset_manifest, pull_model
    from latentrec.registry.promotion import PromotionEvent, promote, promotion_history, rollback
    from latentrec.registry.registration import Registration, register_model
    from latentrec.steps.batch_scoring import BatchResult, batch_score
    from latentrec.steps.step_run import StepRun, ensure_parent_run, finish_parent_run, step_run

_HOME = {
    "BatchResult": "batch",
    "batch_score": "batch",
    "PromotionEvent": "promotion",
    "promote": "promotion",
    "promotion_history": "promotion",
    "rollback": "promotion",
    "find_champion": "pull",
    "previous_dataset_manifest": "pull",
    "pull_model": "pull",
    "Registration": "register",
    "register_model": "register",
    "StepRun": "steps",
    "ensure_parent_run": "steps",
    "finish_parent_run": "steps",
    "step_run": "steps",
}

__all__ = [
    "BatchResult",
    "PromotionEvent",
    "Registration",
    "StepRun",
    "batch_score",
    "ensure_parent_run",
    "find_champion",
    "finish_parent_run",
    "previous_dataset_manifest",
    "promote",
    "promotion_history",
    "pull_model",
    "register_model",
    "rollback",
    "step_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
