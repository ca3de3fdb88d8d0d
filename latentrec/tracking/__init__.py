"""MLflow: runs, model registry, the served model. The only room that knows MLflow.

Names are imported when they are first used: the served model loads this package in an environment that has
only its own few requirements.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentrec.tracking.steps import (
        StepRun,
        ensure_parent_run,
        finish_parent_run,
        step_run,
    )

_HOME = {
    "StepRun": "steps",
    "ensure_parent_run": "steps",
    "finish_parent_run": "steps",
    "step_run": "steps",
}

__all__ = [
    "StepRun",
    "ensure_parent_run",
    "finish_parent_run",
    "step_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
