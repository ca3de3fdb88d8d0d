"""What the trainers of transformers and trl get besides: pickle-free checkpoints, early stopping, resume.

:class:`ResumableTrainerMixin` is mixed into ``transformers.Trainer`` (stage 1) and ``trl.GRPOTrainer``
(stage 2). The engines keep their loop; after each optimizer step this class checks the loss, evaluates on
validation when due, saves, and stops on a signal. A run that was killed and started again takes the
same steps with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState

from latentrec.core.process import trim_heap
from latentrec.training.common.checkpointing import (
    Checkpoints,
    Interruption,
    load_state,
    restore_rng_state,
    rng_state,
    save_state,
)
from latentrec.training.common.divergence import check_finite
from latentrec.training.common.early_stopping import EarlyStopping
from latentrec.training.common.metric_logger import MetricLogger
from latentrec.training.common.progress_bar import ProgressBar
from latentrec.training.common.sharding import (
    gather_state,
    held_whole,
    is_shard,
    is_sharded,
    optimizer_state_for,
    reshard,
    sharded_like,
    whole,
)
from latentrec.training.common.trainer_compat import TransformersHooks

STATE_FILE = "trainer_state.json"
_NOT_FIGURES = {"total_flos", "num_tokens"}


class ResumableTrainerMixin(TransformersHooks):
    """Mixin before a ``transformers.Trainer``; call :meth:`configure` once, then :meth:`run`."""

    def configure(
        self,
        *,
        checkpoints: Checkpoints,
        metric_logger: MetricLogger,
        interruption: Interruption,
        save_steps: int,
        label: str,
        early_stopping: EarlyStopping | None = None,
        eval_steps: int = 1,
        batch_sampler: Any = None,
        evaluate_first: bool = False,
        keep_best: bool = True,
        on_step: Callable[[], dict[str, float]] | None = None,
        metric_names: Mapping[str, str] | None = None,
        evaluates_whole: bool = False,
    ) -> None:
        """Set what a training needs besides its engine.

        Args:
            checkpoints: where to save and what to resume from.
            metric_logger: where metrics go.
            interruption: the flag that a signal raises.
            save_steps: optimizer steps between two checkpoints (each evaluation saves besides).
            label: name of the progress bar.
            early_stopping: validation, early stopping, guards; ``None``: train to the end.
            eval_steps: optimizer steps between two evaluations.
            batch_sampler: the order of samples (``set_epoch``, ``steps_per_epoch``); ``None``: the dataset's.
            evaluate_first: evaluate before the first step too: training may then end where it began.
            keep_best: end with the best weights; else with the last.
            on_step: extra metrics, read at each log.
            metric_names: the trainer's names → ours, others are dropped; ``None``: all numbers, as they are.
            evaluates_whole: validation decodes, so every process holds all weights meanwhile; else sharded
                ones are gathered layer by layer.
        """
        self.evaluates_whole = evaluates_whole
        self.checkpoints = checkpoints
        self.early_stopping = early_stopping
        self.metric_logger = metric_logger
        self.interruption = interruption
        self.steps_between_evaluations = max(1, eval_steps)
        self.steps_between_checkpoints = max(1, save_steps)
        self.metric_names = metric_names
        self.extra_metrics = on_step
        self.batch_sampler = batch_sampler
        self.evaluates_first = evaluate_first
        self.keeps_best = keep_best and early_stopping is not None
        self._handled_step = -1
        trainer: Any = self
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(ProgressBar(self, label))

    def run(self) -> None:
        """Train to the end, from the newest checkpoint where there is one; then restore the best weights.

        Raises:
            Interrupted: a signal came; the state is saved.
            TrainingDiverged: loss or gradient is not finite.
        """
        trainer: Any = self
        with self.checkpoints.latest() as found:
            if found is None:
                trainer.train()
            else:
                directory, info = found
                stopping = self.early_stopping
                if stopping is not None:
                    stopping.load(info.metadata["early_stopping"])
                self.metric_logger.log_metrics({"train/resumed_at_step": float(info.step)}, info.step)
                if info.metadata["finished"] or (stopping is not None and stopping.stopped):
                    self.load_weights(directory)
                    trainer.state = TrainerState.load_from_json(str(directory / STATE_FILE))
                else:
                    trainer.train(resume_from_checkpoint=str(directory))
        if not self.keeps_best:
            return
        with self.checkpoints.best() as found:
            # Without a root they are in the first process alone: it gives the others' shards to them.
            if self._anywhere(found is not None):
                self.load_weights(None if found is None else found[0])

    def gathered_weights(self) -> dict[str, torch.Tensor]:
        """What was trained, by name: whole tensors on the first process, empty ones elsewhere if sharded."""
        trainer: Any = self
        state: dict[str, torch.Tensor] = gather_state(
            self._trainable(), keep=trainer.accelerator.is_main_process
        )
        return state

    # What the engines call

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Send figures to the metric logger as they are made."""
        super().log(logs, start_time)  # type: ignore[misc]
        if self.metric_names is None:  # else the callback logs: trl adds its own metrics further up
            self.log_training_metrics(logs)

    def log_training_metrics(self, logs: Mapping[str, Any]) -> None:
        """Pass on one step's metrics as ``train/…``; not the trainer's closing summary, which has no loss."""
        trainer: Any = self
        if trainer.accelerator.is_main_process and "loss" in logs:
            extra = self.extra_metrics() if self.extra_metrics else {}
            selected = self.selected_metrics({**logs, **extra})
            named = {f"train/{name}": value for name, value in selected.items()}
            self.metric_logger.log_metrics(named, trainer.state.global_step)

    def selected_metrics(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """The numbers among ``logs`` that are logged, under our names."""
        if self.metric_names is not None:
            logs = {ours: logs[theirs] for theirs, ours in self.metric_names.items() if theirs in logs}
        return {
            name: float(value)
            for name, value in logs.items()
            if isinstance(value, int | float) and name not in _NOT_FIGURES
        }

    def training_curve(self) -> list[dict[str, float]]:
        """One entry a logged step, also for steps before an interruption."""
        trainer: Any = self
        entries = [
            {
                "step": float(logs["step"]),
                **self.selected_metrics({k: v for k, v in logs.items() if k != "step"}),
            }
            for logs in trainer.state.log_history
        ]
        return [entry for entry in entries if len(entry) > 1]

    def after_step(self, loss: torch.Tensor, grad_norm: Any, log: Callable[[], None]) -> None:
        """Log, evaluate, save and stop where they are due.

        Raises:
            Interrupted: a signal came; the state is saved.
            TrainingDiverged: loss or gradient is not finite.
        """
        trainer: Any = self
        step = trainer.state.global_step
        if step == self._handled_step:  # the engine calls once more at the end of an epoch
            return
        self._handled_step = step
        if trainer.args.device.type == "cpu":
            trim_heap()
        finished = step >= trainer.state.max_steps
        evaluates = self.early_stopping is not None and (
            step % self.steps_between_evaluations == 0 or finished
        )
        # Reading a figure waits for the device. A NaN stays in a sum and in weights: read it when it is due.
        due = step % trainer.args.logging_steps == 0 or step % self.steps_between_checkpoints == 0
        if due or evaluates or finished or trainer.args.device.type == "cpu":
            norm = None if grad_norm is None else float(whole(grad_norm))
            check_finite(step, float(loss), norm, trainer.args.learning_rate)
        log()
        improved = False
        if evaluates:
            assert self.early_stopping is not None
            improved = self.evaluate_now(step)
            finished |= self.early_stopping.stopped
            trainer.control.should_training_stop |= self.early_stopping.stopped
        interrupted = self._anywhere(self.interruption.requested)
        at_boundary = self.may_save(step)
        if (
            evaluates
            or finished
            or ((interrupted or step % self.steps_between_checkpoints == 0) and at_boundary)
        ):
            self._save_checkpoint_of_run(step, finished=finished, best=improved)
        if interrupted and not finished and (evaluates or at_boundary):
            raise self.interruption.stop(step, saved=self.checkpoints.kept)

    def may_save(self, step: int) -> bool:
        """Whether a run can resume after this step; overridden where steps share a buffer."""
        return True

    def evaluate_now(self, step: int) -> bool:
        """Evaluate on validation; returns whether the model is the best so far."""
        trainer: Any = self
        stopping = self.early_stopping
        assert stopping is not None
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        training = model.training
        model.eval()
        try:
            if is_sharded(model):  # its weights are there inside a pass alone
                with held_whole(model) if self.evaluates_whole else nullcontext():
                    metrics, improved = model(lambda _: stopping.update(step))
                reshard(model)
            else:
                metrics, improved = stopping.update(step)
        finally:
            model.train(training)
        if trainer.accelerator.is_main_process:
            self.metric_logger.log_metrics({f"valid/{k}": v for k, v in metrics.items()}, step)
        return improved

    def _save_checkpoint_of_run(self, step: int, *, finished: bool, best: bool) -> None:
        trainer: Any = self
        generators = self._rng_of_all_processes()
        weights = self.gathered_weights()
        optimizer = gather_state(trainer.optimizer.state_dict(), keep=trainer.accelerator.is_main_process)
        if trainer.accelerator.is_main_process:
            stopping = self.early_stopping.state() if self.early_stopping is not None else None
            metadata = {"early_stopping": stopping, "finished": finished}
            self.checkpoints.save(
                step,
                lambda directory: self._write(directory, weights, optimizer, generators),
                metadata=metadata,
                best=best,
            )
        trainer.accelerator.wait_for_everyone()

    def _write(
        self, directory: Path, weights: Any, optimizer: dict[str, Any], generators: dict[str, Any]
    ) -> None:
        trainer: Any = self
        save_state(directory, "weights", weights)
        save_state(directory, "optimizer", optimizer)
        save_state(directory, "scheduler", trainer.lr_scheduler.state_dict())
        save_state(directory, "rng", {"generators": generators, "running": self.running_figures()})
        trainer.state.save_to_json(str(directory / STATE_FILE))

    def _trainable(self) -> dict[str, torch.Tensor]:
        trainer: Any = self
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        reshard(model)
        return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def load_weights(self, directory: Path | None) -> None:
        """Load the weights of a checkpoint; where they are sharded, of the first process's.

        Args:
            directory: of the checkpoint; ``None`` where this process has none. It then keeps weights that are
                not sharded.
        """
        own = self._trainable()
        weights = {} if directory is None else load_state(directory, "weights")
        assert directory is None or weights.keys() == own.keys(), (
            "the checkpoint holds other parameters than this model trains"
        )
        with torch.no_grad():
            for name, parameter in own.items():
                if name in weights or is_shard(parameter):
                    parameter.copy_(sharded_like(weights.get(name), parameter))

    def load_optimizer(self, directory: Path) -> None:
        """Load the optimizer's and the schedule's state, and the sums since the last log."""
        trainer: Any = self
        state = load_state(directory, "optimizer")
        trainer.optimizer.load_state_dict(optimizer_state_for(state, trainer.optimizer))
        trainer.lr_scheduler.load_state_dict(load_state(directory, "scheduler"))
        self._resumed_running = load_state(directory, "rng")["running"]

    def load_rng(self, directory: Path) -> None:
        """Load the state of random generators, each process its own."""
        trainer: Any = self
        generators = load_state(directory, "rng")["generators"]
        restore_rng_state(generators["main"])
        ranks = generators["torch_of_ranks"]
        if len(ranks) == trainer.accelerator.num_processes > 1:
            torch.random.set_rng_state(ranks[trainer.accelerator.process_index])

    def begin(self) -> None:
        """Called when the engine is ready for its first step, resumed or not."""
        trainer: Any = self
        self.restore_running_figures()
        if self.evaluates_first and trainer.state.global_step == 0:
            self._save_checkpoint_of_run(0, finished=False, best=self.evaluate_now(0))

    def restore_running_figures(self) -> None:
        """Put back the sums since the last log, so that the next logged loss is what it would have been."""
        running = getattr(self, "_resumed_running", None)
        if running is not None:
            self.set_running_figures(running)
            self._resumed_running = None

    def _rng_of_all_processes(self) -> dict[str, Any]:
        trainer: Any = self
        own = torch.random.get_rng_state().to(trainer.args.device)
        ranks = trainer.accelerator.gather(own[None])
        return {"main": rng_state(), "torch_of_ranks": [state.cpu().to(torch.uint8) for state in ranks]}

    def _anywhere(self, flag: bool) -> bool:
        trainer: Any = self
        if trainer.accelerator.num_processes == 1:
            return flag
        mine = torch.tensor(float(flag), device=trainer.args.device)
        return bool(trainer.accelerator.reduce(mine, reduction="sum") > 0)
