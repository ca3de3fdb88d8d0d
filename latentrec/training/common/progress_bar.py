"""The callback of a resumable trainer: its progress bar, and the events that only callbacks get."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback

from latentrec.core import progress


class ProgressBar(TrainerCallback):
    """Shows progress; begins the training, sets the sampler's epoch and logs where metrics are renamed."""

    def __init__(self, trainer: Any, label: str):
        self._trainer = trainer
        self._label = label
        self._context: Any = None
        self._bar: Any = None
        self._begin = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the training and show the bar."""
        self._trainer.begin()
        if state.is_world_process_zero:
            begun = float(state.global_step)
            self._context = progress(self._label, state.max_steps, "steps", initial=begun)
            self._bar = self._context.__enter__()
        self._begin = time.monotonic()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the sampler's epoch."""
        batch_sampler = self._trainer.batch_sampler
        if batch_sampler is None:
            return
        batch_sampler.set_epoch(state.global_step // batch_sampler.steps_per_epoch)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance."""
        if self._bar is not None:
            self._bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Log renamed metrics and show them."""
        if not logs or "loss" not in logs:
            return
        if self._trainer.metric_names is not None:
            self._trainer.log_training_metrics(logs)
        if self._bar is not None:
            shown = (
                self._trainer.selected_metrics(logs) if self._trainer.metric_names else {"loss": logs["loss"]}
            )
            self._bar.set_postfix_str(" ".join(f"{name} {value:.4f}" for name, value in shown.items()))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self._context is not None:
            self._context.__exit__(None, None, None)
