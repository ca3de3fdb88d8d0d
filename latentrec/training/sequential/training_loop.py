"""The loop of every ID-based trainer: epochs, validation, early stopping, checkpoints, curves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from latentrec.core import Interrupted, UserError, progress
from latentrec.data import Samples
from latentrec.metrics import hit_rate_at_k, ndcg_at_k, rank_of_target
from latentrec.models.sequential import SequentialRecommender
from latentrec.storage import CheckpointStore
from latentrec.training.common.metric_logger import MetricLogger
from latentrec.training.sequential.state import Progress, reseed, restore_state, save_state, stop_on_sigterm

SELECTION_METRIC = "ndcg_at_10"
CHECKPOINT_INTERVAL_S = 60.0
LOG_EVERY_STEPS = 20

Loss = Callable[[np.ndarray], tuple[Tensor, dict[str, float]]]
"""Row indices of one batch → its loss and what else is worth a curve."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long and how to train; see the trainers' configurations for the meaning of each field."""

    learning_rate: float
    weight_decay: float
    max_epochs: int
    patience: int
    gradient_clip: float
    seed: int


@dataclass(frozen=True)
class LoopResult:
    """What a training reached; the model holds the best epoch's weights."""

    progress: Progress
    seconds: float

    @property
    def metrics(self) -> dict[str, float]:
        """Validation figures of the weights kept, with the epoch that they are from."""
        done = self.progress
        return {**done.best_metrics, "best_epoch": float(done.best_epoch), "epochs": float(done.epoch)}


def fit(
    model: nn.Module,
    loss: Loss,
    plan: Callable[[int], list[np.ndarray]],
    validate: Callable[[], dict[str, float]],
    settings: LoopSettings,
    metric_logger: MetricLogger,
    store: CheckpointStore | None = None,
    *,
    validate_first: bool = False,
    label: str = "training",
) -> LoopResult:
    """Train until validation NDCG@10 has not risen for ``patience`` epochs; keep the best epoch's weights.

    Args:
        model: trained in place.
        loss: see :data:`Loss`; called in training mode.
        plan: epoch → batches of row indices; must be a function of the epoch alone.
        validate: called in evaluation mode; gives at least ``ndcg_at_10``.
        settings: see :class:`LoopSettings`.
        metric_logger: curves go there while training runs.
        store: checkpoints; where it holds some of the same work, training resumes from the latest.
        validate_first: count the weights before training as a candidate (post-training).
        label: for the progress bar.

    Raises:
        UserError: the loss is not finite.
        Interrupted: SIGTERM came; a checkpoint was saved first, where there is a store.
    """
    begun = time.monotonic()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    state, best = Progress(), _copy(model)
    restored = restore_state(store, model, optimiser) if store is not None else None
    if restored is not None:
        state, best = restored
    elif validate_first:
        _early_stopping(state, _figures(model, validate), model, best, count=False)
        metric_logger.log_metrics(
            {f"valid/{name}": value for name, value in state.best_metrics.items()}, step=0
        )
    with stop_on_sigterm() as stop, progress(label, settings.max_epochs, "epochs") as bar:
        bar.update(state.epoch)
        while state.epoch < settings.max_epochs and state.stale_epochs < settings.patience:
            last_save = time.monotonic()
            batches = plan(state.epoch)
            while state.batch < len(batches):
                _step(
                    model, loss, batches[state.batch], optimiser, parameters, settings, state, metric_logger
                )
                due = time.monotonic() - last_save > CHECKPOINT_INTERVAL_S
                if store is not None and (stop or due):
                    save_state(store, state, model, best, optimiser)
                    last_save = time.monotonic()
                if stop:
                    where = f"at step {state.step}" if store is not None else "without --checkpoint-root"
                    raise Interrupted(f"{label} stopped on SIGTERM {where}")
            figures = _figures(model, validate)
            mean_loss = state.epoch_loss / max(1, len(batches))
            state.curve.append({"loss": mean_loss, **figures})
            state.epoch, state.batch, state.epoch_loss = state.epoch + 1, 0, 0.0
            _early_stopping(state, figures, model, best)
            metric_logger.log_metrics(
                {"train/epoch_loss": mean_loss, **{f"valid/{name}": v for name, v in figures.items()}},
                step=state.step,
            )
            bar.update(1)
            bar.set_postfix_str(
                f"loss {mean_loss:.4f} ndcg@10 {figures[SELECTION_METRIC]:.4f} best {state.best_value:.4f}"
            )
            if store is not None:
                save_state(store, state, model, best, optimiser)
    model.load_state_dict(best)
    model.eval()
    return LoopResult(state, time.monotonic() - begun)


def validation_figures(recommender: SequentialRecommender, valid: Samples, k: int = 10) -> dict[str, float]:
    """HR and NDCG at ``k`` of the item-level ranking of the whole catalogue."""
    ranked = recommender.rank(valid.histories(), k).item_ids
    ranks = rank_of_target(ranked, valid.targets)
    return {
        f"ndcg_at_{k}": float(ndcg_at_k(ranks, k).mean()),
        f"hr_at_{k}": float(hit_rate_at_k(ranks, k).mean()),
    }


def _step(
    model: nn.Module,
    loss: Loss,
    batch: np.ndarray,
    optimiser: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    settings: LoopSettings,
    state: Progress,
    metric_logger: MetricLogger,
) -> None:
    """One optimiser step; everything random in it follows from (seed, step)."""
    model.train()
    reseed(settings.seed, state.step)
    value, extra = loss(batch)
    number = value.item()
    if not math.isfinite(number):
        raise UserError(f"the loss is {number} at step {state.step + 1}; try a lower learning_rate")
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    if settings.gradient_clip > 0:
        torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
    optimiser.step()
    state.step += 1
    state.batch += 1
    state.epoch_loss += number
    if state.step % LOG_EVERY_STEPS == 0:
        figures = {"train/loss": number, **{f"train/{name}": v for name, v in extra.items()}}
        metric_logger.log_metrics(figures, step=state.step)


def _figures(model: nn.Module, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
    model.eval()
    return validate()


def _early_stopping(
    state: Progress,
    figures: dict[str, float],
    model: nn.Module,
    best: dict[str, Tensor],
    *,
    count: bool = True,
) -> None:
    """Keep the weights where the selection metric has risen."""
    if figures[SELECTION_METRIC] > state.best_value:
        state.best_value, state.best_epoch = figures[SELECTION_METRIC], state.epoch
        state.best_metrics, state.stale_epochs = dict(figures), 0
        best.update(_copy(model))
    elif count:
        state.stale_epochs += 1


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
