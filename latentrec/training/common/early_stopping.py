"""Validation while training: loss and ranking, the best so far, early stopping, the collapse guard."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from latentrec.core import UserError

Metrics = dict[str, float]
LOSS = "loss"
OBJECTIVE = "objective"
SELECTIONS = (LOSS, "ndcg_at_10")


def check_selection(config: str, metric_for_best_model: str, ranking_samples: int) -> None:
    """Refuse to select on a figure that is not measured.

    Raises:
        UserError: a ranking figure is to decide, and nothing is ranked.
    """
    if metric_for_best_model in SELECTIONS[1:] and not ranking_samples:
        raise UserError(
            f"{config}.metric_for_best_model is '{metric_for_best_model}', but ranking_samples is 0; rank at "
            "least 100 samples",
            code="config.conflict",
        )


class EarlyStopping:
    """Follows validation metrics and decides when to stop.

    Args:
        measure: gives the figures of the model as it stands (``loss``, ``ndcg_at_10``, ``objective``…).
        metric_for_best_model: the figure that decides which weights are kept: ``loss``, where less is better,
            or another, where more is.
        patience: evaluations without improvement before training stops; 0: never.
        collapse_on: a figure that must not fall below ``collapse_below`` times its first value; ``None``:
            no guard.
        collapse_below: that share.
    """

    def __init__(
        self,
        measure: Callable[[], Metrics],
        *,
        metric_for_best_model: str = "loss",
        patience: int = 0,
        collapse_on: str | None = None,
        collapse_below: float = 0.5,
    ):
        """Nothing seen yet."""
        self._measure = measure
        self._select_on = metric_for_best_model
        self._sign = -1.0 if metric_for_best_model == LOSS else 1.0
        self._patience = patience
        self._collapse_on = collapse_on
        self._collapse_below = collapse_below
        self.history: list[dict[str, float]] = []
        self.best_step: int | None = None
        self.best_metrics: Metrics = {}
        self.stopped = False
        self.notes: list[str] = []
        self._evaluations_without_improvement = 0

    @property
    def last_metrics(self) -> Metrics:
        """Metrics of the last evaluation."""
        return {name: value for name, value in self.history[-1].items() if name != "step"}

    def update(self, step: int) -> tuple[Metrics, bool]:
        """Measure; returns the figures and whether they are the best so far."""
        metrics = self._measure()
        self.history.append({"step": float(step), **metrics})
        value = metrics[self._select_on]
        best = self.best_metrics.get(self._select_on)
        improved = math.isfinite(value) and (best is None or self._sign * (value - best) > 0)
        if improved:
            self.best_step, self.best_metrics, self._evaluations_without_improvement = step, metrics, 0
        else:
            self._evaluations_without_improvement += 1
            if self._patience and self._evaluations_without_improvement >= self._patience:
                self.stopped = True
                self.notes.append(
                    f"stopped early at step {step:,}: {self._select_on} has not improved since step "
                    f"{self.best_step if self.best_step is not None else 0:,}"
                )
        self._guard(step, metrics)
        return metrics, improved

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as JSON values."""
        return {
            "history": self.history,
            "best_step": self.best_step,
            "best_metrics": self.best_metrics,
            "stopped": self.stopped,
            "notes": self.notes,
            "evaluations_without_improvement": self._evaluations_without_improvement,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` gave."""
        self.history = list(state["history"])
        self.best_step = state["best_step"]
        self.best_metrics = dict(state["best_metrics"])
        self.stopped = state["stopped"]
        self.notes = list(state["notes"])
        self._evaluations_without_improvement = state["evaluations_without_improvement"]

    def _guard(self, step: int, metrics: Metrics) -> None:
        if self._collapse_on is None or self._collapse_on not in self.history[0]:
            return
        first, now = self.history[0][self._collapse_on], metrics[self._collapse_on]
        if first > 0 and now < self._collapse_below * first:
            self.stopped = True
            self.notes.append(
                f"collapse guard: validation {self._collapse_on} fell from {first:.4f} to {now:.4f} at step "
                f"{step:,}; training stopped and the best weights (step "
                f"{self.best_step if self.best_step is not None else 0:,}) were kept"
            )
