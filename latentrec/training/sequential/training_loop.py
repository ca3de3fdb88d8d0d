"""The loop of every ID-based trainer: epochs, validation, early stopping, checkpoints, curves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from latentrec.core import UserError, progress
from latentrec.data import Samples
from latentrec.metrics import rank_of_target, ranking_figures
from latentrec.models import Recommender
from latentrec.training.common.checkpointing import Checkpoints, Interruption, load_state, save_state
from latentrec.training.common.divergence import check_finite
from latentrec.training.common.early_stopping import EarlyStopping
from latentrec.training.common.metric_logger import MetricLogger
from latentrec.training.sequential.processes import ALONE, Objective, Processes
from latentrec.training.sequential.rpt_config import RPTConfig
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.state import Progress, optimizer_to, reseed

SELECTION_METRIC = "ndcg_at_10"
CHECKPOINT_INTERVAL_S = 60.0
LOG_EVERY_STEPS = 20

Loss = Callable[[np.ndarray], tuple[Tensor, dict[str, float]]]
"""Row indices of one batch → its loss and what else is worth a curve: this process's part of each."""


@dataclass(frozen=True)
class LoopResult:
    """What a training reached; the model holds the best epoch's weights."""

    progress: Progress
    early_stopping: EarlyStopping
    seconds: float

    @property
    def best_value(self) -> float:
        """The selection metric of the weights kept; −1 where nothing was evaluated."""
        return self.early_stopping.best_metrics.get(SELECTION_METRIC, -1.0)

    @property
    def curve(self) -> list[dict[str, float]]:
        """The mean loss of each epoch; ``step`` counts epochs, as validation's does."""
        return [
            {"step": float(epoch), "loss": entry["loss"]}
            for epoch, entry in enumerate(self.progress.curve, start=1)
        ]

    @property
    def metrics(self) -> dict[str, float]:
        """Validation metrics of the weights kept, with the epoch that they are from."""
        best = self.early_stopping
        return {
            **best.best_metrics,
            "best_epoch": float(best.best_step or 0),
            "epochs": float(self.progress.epoch),
        }


def fit(
    model: nn.Module,
    loss: Loss,
    batches_of: Callable[[int], list[np.ndarray]],
    validate: Callable[[], dict[str, float]],
    config: SequentialConfig | RPTConfig,
    metric_logger: MetricLogger,
    checkpoints: Checkpoints | None,
    *,
    validate_first: bool = False,
    label: str = "training",
    processes: Processes = ALONE,
) -> LoopResult:
    """Train until validation NDCG@10 has not risen for ``patience`` epochs; keep the best epoch's weights.

    Args:
        model: trained in place.
        loss: see :data:`Loss`; called in training mode.
        batches_of: epoch → batches of row indices; must be a function of the epoch alone.
        validate: called in evaluation mode; gives at least ``ndcg_at_10``.
        config: learning rate, weight decay, epochs, patience and seed are read.
        metric_logger: curves go there while training runs.
        checkpoints: where some of the same work is saved, training resumes from the latest.
        validate_first: count the weights before training as a candidate (post-training).
        label: for the progress bar.
        processes: those that train together; each calls this with the same arguments and ends with the same
            weights. The first saves the checkpoints.

    Raises:
        TrainingDiverged: the loss is not finite.
        Interrupted: SIGTERM or SIGINT came; a checkpoint was saved first, where there are checkpoints.
    """
    begun = time.monotonic()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    state, best = Progress(), _copy(model)
    stopping = EarlyStopping(
        lambda: _evaluated(model, validate),
        metric_for_best_model=SELECTION_METRIC,
        patience=config.patience,
    )

    def save() -> None:
        if checkpoints is None or not processes.is_first:
            return
        metadata = {"progress": asdict(state), "early_stopping": stopping.state()}
        checkpoints.save(state.step, lambda folder: _write(folder, model, best, optimizer), metadata=metadata)

    resumed = _restore(checkpoints, model, best, optimizer, state, stopping)
    _check_resumed_together(processes, state)
    objective = processes.objective(model, loss)
    if not resumed and validate_first:
        metrics, improved = stopping.update(0)
        if improved:
            best.update(_copy(model))
        metric_logger.log_metrics({f"valid/{name}": value for name, value in metrics.items()}, step=0)
    with (
        Interruption() as interruption,
        progress(
            label, config.num_train_epochs, "epochs", initial=state.epoch, shown=processes.is_first
        ) as bar,
    ):
        while state.epoch < config.num_train_epochs and not stopping.stopped:
            last_save = time.monotonic()
            batches = batches_of(state.epoch)
            while state.batch < len(batches):
                _step(model, objective, batches[state.batch], optimizer, config, state, metric_logger)
                interrupted = processes.any(interruption.requested)
                if interrupted or time.monotonic() - last_save > CHECKPOINT_INTERVAL_S:
                    save()
                    last_save = time.monotonic()
                if interrupted:
                    raise interruption.stop(state.step, saved=checkpoints is not None)
            mean_loss = state.epoch_loss / max(1, len(batches))
            state.epoch, state.batch, state.epoch_loss = state.epoch + 1, 0, 0.0
            metrics, improved = stopping.update(state.epoch)
            if improved:
                best.update(_copy(model))
            state.curve.append({"loss": mean_loss, **metrics})
            metric_logger.log_metrics(
                {"train/epoch_loss": mean_loss, **{f"valid/{name}": v for name, v in metrics.items()}},
                step=state.step,
            )
            bar.update(1)
            highest = stopping.best_metrics.get(SELECTION_METRIC, 0.0)
            bar.set_postfix_str(
                f"loss {mean_loss:.4f} ndcg@10 {metrics[SELECTION_METRIC]:.4f} best {highest:.4f}"
            )
            save()
    model.load_state_dict(best)
    model.eval()
    return LoopResult(state, stopping, time.monotonic() - begun)


def _write(folder: Path, model: nn.Module, best: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    save_state(folder, "weights", dict(model.state_dict()))
    save_state(folder, "best", best)
    save_state(folder, "optimizer", optimizer.state_dict())


def _restore(
    checkpoints: Checkpoints | None,
    model: nn.Module,
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: Progress,
    stopping: EarlyStopping,
) -> bool:
    """Load the latest checkpoint of this work, where there is one."""
    if checkpoints is None:
        return False
    with checkpoints.latest() as found:
        if found is None:
            return False
        folder, info = found
        model.load_state_dict(load_state(folder, "weights"))
        best.update(load_state(folder, "best"))
        optimizer_to(optimizer, load_state(folder, "optimizer"))
        vars(state).update(info.metadata["progress"])
        stopping.load(info.metadata["early_stopping"])
    return True


def validation_figures(
    recommender: Recommender, valid: Samples, processes: Processes = ALONE, k: int = 10
) -> dict[str, float]:
    """HR and NDCG at ``k`` of the item-level ranking of the whole catalogue; processes share the users."""
    own = valid.subset(np.arange(processes.rank, len(valid), processes.size))
    ranks = rank_of_target(recommender.rank(own.histories(), k).item_ids, own.targets)
    return ranking_figures(processes.gather_figures(ranks, len(valid)), k)


def _check_resumed_together(processes: Processes, state: Progress) -> None:
    if not processes.all_have(state.step):
        raise UserError(
            f"process {processes.rank} of {processes.size} resumes from step {state.step}, another one from "
            "elsewhere; the checkpoint root must be storage that all nodes see",
            code="checkpoint.not_shared",
        )


def _step(
    model: nn.Module,
    objective: Objective,
    batch: np.ndarray,
    optimizer: torch.optim.Optimizer,
    config: SequentialConfig | RPTConfig,
    state: Progress,
    metric_logger: MetricLogger,
) -> None:
    """One optimizer step; everything random in it follows from (seed, step)."""
    model.train()
    reseed(config.seed, state.step)
    value, extra = objective(batch)
    number, *figures = objective.processes.sum_figures([value.item(), *extra.values()])
    check_finite(state.step + 1, number, None, config.learning_rate)
    optimizer.zero_grad(set_to_none=True)
    objective.backward(value)
    optimizer.step()
    state.step += 1
    state.batch += 1
    state.epoch_loss += number
    if state.step % LOG_EVERY_STEPS == 0:
        named = zip(extra, figures, strict=True)
        metric_logger.log_metrics(
            {"train/loss": number, **{f"train/{name}": value for name, value in named}}, step=state.step
        )


def _evaluated(model: nn.Module, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
    model.eval()
    return validate()


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
