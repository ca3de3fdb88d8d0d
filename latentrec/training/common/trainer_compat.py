"""Everything private of ``transformers.Trainer`` and ``trl.GRPOTrainer`` that our trainers override or read.

They offer no public hook for it. Each private method is overridden here alone and calls a method of ours,
which a trainer then overrides; the reasons stand with them. Last run with transformers 5.23.0 and trl 1.16.0,
and with transformers 5.17 (``tests/test_dependencies.py`` fails when the locks hold another version, and
``tests/test_compat.py`` when something private is used elsewhere).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import DistributedType, PartialState
from safetensors.torch import save_model
from torch import Tensor

from latentrec.training.common.sharding import held_whole


class TransformersHooks(ABC):
    """Mixin before a ``transformers.Trainer``."""

    # accelerate takes FSDP on accelerators alone: on a CPU it would train with DDP and not say so. Where the
    # state of its accelerator is made, the processes count as such; it then sets the type to FSDP by itself,
    # and a variable, by which the next training of this process would be sharded too.
    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator; weights are sharded where the arguments say so, and nowhere else."""
        trainer: Any = self
        os.environ.pop("ACCELERATE_USE_FSDP", None)
        state = PartialState._shared_state
        if trainer.args.fsdp and state["distributed_type"] == DistributedType.MULTI_CPU:
            state["distributed_type"] = DistributedType.MULTI_GPU
        super().create_accelerator_and_postprocess()  # type: ignore[misc]

    # Callbacks see the end of a step before its loss is logged, and cannot read the loss or the gradient's
    # norm; a NaN must stop the run, and a checkpoint hold the figures, after exactly this step.
    def _maybe_log_save_evaluate(self, tr_loss: Tensor, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        log = super()._maybe_log_save_evaluate  # type: ignore[misc]
        self.after_step(tr_loss, grad_norm, lambda: log(tr_loss, grad_norm, *args, **kwargs))

    # The engine reads and writes weights, optimizer and random state as pickles of torch.save; ours are
    # safetensors and JSON.
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.load_weights(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.load_optimizer(Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.load_rng(Path(checkpoint))

    def after_step(self, loss: Tensor, grad_norm: Any, log: Callable[[], None]) -> None:
        """Called after each optimizer step, and again at an epoch's end; ``log`` is the engine's part."""
        log()

    @abstractmethod
    def load_weights(self, directory: Path) -> None:
        """Load the weights of a checkpoint."""

    @abstractmethod
    def load_optimizer(self, directory: Path) -> None:
        """Load the optimizer's and the schedule's state."""

    @abstractmethod
    def load_rng(self, directory: Path) -> None:
        """Load the state of random generators."""

    # Sums since the last log, which the engine keeps in no state file: without them the first loss that is
    # logged after a resume is another.
    def running_figures(self) -> dict[str, Any]:
        """Sums since the last log, as a checkpoint holds them."""
        trainer: Any = self
        return {
            "loss": trainer._tr_loss,
            "total_loss": trainer._total_loss_scalar,
            "last_logged": trainer._globalstep_last_logged,
        }

    def set_running_figures(self, figures: dict[str, Any]) -> None:
        """Put back what :meth:`running_figures` gave."""
        trainer: Any = self
        trainer._tr_loss = figures["loss"].to(trainer.args.device)
        trainer._total_loss_scalar = figures["total_loss"]
        trainer._globalstep_last_logged = figures["last_logged"]


class CountedItems(ABC):
    """Mixin before a ``transformers.Trainer`` whose loss counts its items otherwise."""

    # The engine counts the `labels` of a language model, and over all processes only where it multiplies the
    # loss as well (average_tokens_across_devices); ours have a layout of their own, and may count otherwise.
    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        return self.count_items(batch_samples, device)

    @abstractmethod
    def count_items(self, batches: list, device: torch.device) -> Tensor:
        """What the loss of an optimizer batch is divided by, over all processes; shape ()."""


class TextGeneration:
    """Mixin before a ``trl.GRPOTrainer`` that generates text with weights that may be sharded."""

    # trl gathers nothing for generation under FSDP2 (`summon_full_params` is for FSDP1 alone).
    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        trainer: Any = self
        with held_whole(trainer.model_wrapped):
            return super()._generate_single_turn(*args, **kwargs)  # type: ignore[misc]


class RolloutHooks(ABC):
    """Mixin before a ``trl.GRPOTrainer`` whose action is no text."""

    # trl generates text, and `rollout_func` can pass no tensor to the loss: latents, noise and their means
    # are made and used by these two, and the order of prompts and copies is our batch sampler's.
    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return self.train_sampler()

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        return self.make_rollout(inputs)

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        return self.rollout_loss(model, inputs)

    @abstractmethod
    def train_sampler(self) -> Any:
        """Order of the rows."""

    @abstractmethod
    def make_rollout(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Tensors of one batch of copies, first dimension B: trl shuffles and splits them for the loss."""

    @abstractmethod
    def rollout_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Loss of one part of what :meth:`make_rollout` returned; shape ()."""

    def note_metric(self, name: str, value: float) -> None:
        """Add one value to those that trl averages at its next log."""
        trainer: Any = self
        trainer._metrics["train"][name].append(value)


def keep_for_reference(model: Any, directory: Path) -> None:
    """Save a model where trl's ``GRPOTrainer`` finds it again: it loads its reference by the model's name.

    With ``beta`` above 0 trl makes the reference of the KL term from the location in the model's
    configuration (``create_model_from_path``), even where it was handed the model itself; ours may have come
    from a copy that is gone by then. Each of several processes keeps its own (``save_pretrained`` writes in
    the first of them only).

    Args:
        model: as training begins.
        directory: to make; kept until the trainer is made.
    """
    directory.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    save_model(model, str(directory / "model.safetensors"), metadata={"format": "pt"})
    model.config._name_or_path = str(directory)
