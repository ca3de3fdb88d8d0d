"""A training whose loss or gradient is no longer finite stops with one error in all families."""

from __future__ import annotations

import math


class TrainingDiverged(RuntimeError):
    """The loss or the gradient is not finite; nothing was saved after it."""


def check_finite(step: int, loss: float, grad_norm: float | None, learning_rate: float) -> None:
    """Stop a training that has diverged.

    Args:
        step: the optimizer step, from 1.
        loss: its loss.
        grad_norm: norm of its gradient; ``None`` where it is not known.
        learning_rate: for the message.

    Raises:
        TrainingDiverged: loss or norm is NaN or infinite.
    """
    if math.isfinite(loss) and (grad_norm is None or math.isfinite(grad_norm)):
        return
    norm = "" if grad_norm is None else f", the gradient's norm {grad_norm:.4g}"
    raise TrainingDiverged(
        f"step {step:,}: the loss is {loss:.4g}{norm}; the last checkpoint is intact. Lower learning_rate "
        f"(now {learning_rate:g}), or train in fp32"
    )
