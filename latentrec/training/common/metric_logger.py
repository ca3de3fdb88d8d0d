"""Where a trainer's figures go while it runs; ``tracking`` implements it, over MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class MetricLogger(Protocol):
    """Receives a step's metrics, settings and files; never raises and never blocks for long."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Figures at one training step, e.g. ``{"train/loss": 2.31}``. Non-finite values are dropped."""
        ...

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log the run's settings. Called once, before the first metrics."""
        ...

    def log_artifact(self, path: str | Path) -> None:
        """A file or folder that belongs to the run (a report, a plot)."""
        ...


class NullMetricLogger:
    """Drops everything: for commands run by hand without a tracking server."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log_artifact(self, path: str | Path) -> None:
        """Do nothing."""


NO_METRICS: MetricLogger = NullMetricLogger()
"""The default of every trainer."""
