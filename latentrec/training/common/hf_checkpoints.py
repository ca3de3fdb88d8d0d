"""Checkpoints of transformers' and trl's trainers without pickle, kept by a :class:`CheckpointStore`.

:class:`PickleFreeCheckpoints` is a mixin before any ``Trainer`` class. It changes what a checkpoint *is*
(tensors as safetensors, the rest as JSON) and where it goes, and nothing of how training runs. A run that
is killed and started again ends with the very weights of one that was not: trained parameters, optimiser,
scheduler, trainer state and random generators are restored, and samples come in an order fixed before
training (see :func:`training_order`), so that skipping the first k of them is exact.
"""

from __future__ import annotations

import json
import random
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from latentrec.core import Interrupted, UserError
from latentrec.storage.checkpoints import CheckpointStore

WEIGHTS, OPTIMIZER, GENERATORS, STATE = (
    "trained.safetensors",
    "optimizer.safetensors",
    "generators.safetensors",
    "state.json",
)
TRAINER_STATE = "trainer_state.json"


class PickleFreeCheckpoints:
    """Mixin for ``transformers.Trainer``: ``class T(PickleFreeCheckpoints, GRPOTrainer)``.

    Set :attr:`checkpoints` after construction; ``None`` saves nothing.
    """

    checkpoints: CheckpointStore | None = None

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        if self.checkpoints is None or not self.args.should_save:
            return
        with tempfile.TemporaryDirectory(prefix="latentrec-checkpoint-") as directory:
            self._write_checkpoint(Path(directory))
            self.checkpoints.save(Path(directory), self.state.global_step, metadata={})

    def _write_checkpoint(self: Any, directory: Path) -> None:
        save_file(_trained(self.model), directory / WEIGHTS)
        tensors, plain = _flatten_optimizer(self.optimizer.state_dict())
        save_file(tensors, directory / OPTIMIZER)
        generators, python_state = _generators()
        save_file(generators, directory / GENERATORS)
        scheduler = self.lr_scheduler.state_dict() if self.lr_scheduler is not None else None
        state = {"optimizer": plain, "scheduler": scheduler, "python": python_state}
        (directory / STATE).write_text(json.dumps(state), encoding="utf-8")
        self.state.save_to_json(str(directory / TRAINER_STATE))

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        wanted = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        if set(saved) != set(wanted):
            odd = sorted(set(saved) ^ set(wanted))[0]
            raise UserError(
                f"{resume_from_checkpoint}: parameter '{odd}' is in one of checkpoint and model only"
            )
        with torch.no_grad():
            for name, value in wanted.items():
                value.copy_(saved[name])

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))
        tensors = load_file(Path(checkpoint) / OPTIMIZER)
        self.optimizer.load_state_dict(_unflatten_optimizer(tensors, state["optimizer"]))
        if state["scheduler"] is not None:
            self.lr_scheduler.load_state_dict(state["scheduler"])

    def _load_rng_state(self: Any, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))
        _restore_generators(load_file(Path(checkpoint) / GENERATORS), state["python"])


def training_order(n_samples: int, n_steps: int, per_step: int, seed: int) -> np.ndarray:
    """Indices of the samples of every step, int64 (n_steps × per_step,): one shuffle an epoch, by ``seed``.

    The trainer reads them in sequence as one epoch, so where a resumed run stands is a count and no hidden
    state of a sampler.
    """
    rng = np.random.default_rng(seed)
    epochs = -(-n_steps * per_step // n_samples)
    return np.concatenate([rng.permutation(n_samples) for _ in range(epochs)])[: n_steps * per_step]


class _StopOnSignal(TrainerCallback):
    """Asks the trainer to save and stop at the end of the step in which a signal came."""

    def __init__(self) -> None:
        self.received: int | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True
        return control


def train_resumable(trainer: Any, store: CheckpointStore | None) -> None:
    """Train from the latest checkpoint of this work, or from the start; saves as the trainer's arguments say.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the state was saved, where there is a store.
    """
    trainer.checkpoints = store
    stopper = _StopOnSignal()
    trainer.add_callback(stopper)
    with tempfile.TemporaryDirectory(prefix="latentrec-resume-") as directory, _signals(stopper):
        latest = store.latest() if store is not None else None
        resume_from = None
        if store is not None and latest is not None:
            resume_from = Path(directory) / "checkpoint"
            store.restore(latest, resume_from)
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stopper.received is not None:
        name = signal.Signals(stopper.received).name
        kept = (
            f"saved at step {trainer.state.global_step}"
            if store is not None
            else "no checkpoint root, nothing saved"
        )
        raise Interrupted(f"{name}: {kept}")


@contextmanager
def _signals(stopper: _StopOnSignal) -> Iterator[None]:
    def note(number: int, _frame: Any) -> None:
        stopper.received = number

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: signals are somebody else's
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _trained(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.named_parameters()
        if value.requires_grad
    }


def _flatten_optimizer(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by ``<parameter>.<name>``, and everything else as JSON values."""
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for parameter, entries in state["state"].items():
        plain[str(parameter)] = {}
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{parameter}.{name}"] = value.detach().cpu().contiguous()
            else:
                plain[str(parameter)][name] = value
    return tensors, {"state": plain, "param_groups": state["param_groups"]}


def _unflatten_optimizer(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(key): dict(entries) for key, entries in plain["state"].items()}
    for key, value in tensors.items():
        parameter, name = key.split(".", 1)
        state[int(parameter)][name] = value
    groups = [
        {name: tuple(value) if name == "betas" else value for name, value in group.items()}
        for group in plain["param_groups"]
    ]
    return {"state": state, "param_groups": groups}


def _generators() -> tuple[dict[str, torch.Tensor], list[Any]]:
    name, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        for device, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"cuda.{device}"] = state
    return tensors, [version, list(internal), gauss, [name, int(position), int(has_gauss), float(cached)]]


def _restore_generators(tensors: dict[str, torch.Tensor], plain: list[Any]) -> None:
    version, internal, gauss, (name, position, has_gauss, cached) = plain
    random.setstate((version, tuple(internal), gauss))
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    devices = sorted((key for key in tensors if key.startswith("cuda.")), key=lambda key: int(key[5:]))
    if torch.cuda.is_available() and len(devices) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([tensors[key] for key in devices])
