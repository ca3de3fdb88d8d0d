"""The gradients of a training's first optimizer step, kept whole, and how many of them were sharded."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from latentrec.training.common.resumable_trainer import ResumableTrainerMixin


class FirstGradients(TrainerCallback):
    """Writes ``gradients.safetensors`` and ``sharded.json`` into a folder, on the first process."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step:
            return
        found = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                whole = getattr(parameter.grad, "full_tensor", lambda gradient=parameter.grad: gradient)()
                found[name.removeprefix("module.")] = whole.detach().clone().contiguous()
        if os.environ.get("RANK", "0") == "0":
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(found, self.folder / "gradients.safetensors")
            sharded = sum(hasattr(one.grad, "full_tensor") for one in model.parameters())
            (self.folder / "sharded.json").write_text(json.dumps(sharded))


@contextmanager
def callbacks_of_trainings(*callbacks: TrainerCallback) -> Iterator[None]:
    """Every trainer that is configured meanwhile gets these callbacks besides."""
    configure = ResumableTrainerMixin.configure

    def configured(self, **options):
        configure(self, **options)
        for callback in callbacks:
            self.add_callback(callback)

    ResumableTrainerMixin.configure = configured
    try:
        yield
    finally:
        ResumableTrainerMixin.configure = configure


def gradient_difference(first: Path, second: Path) -> tuple[float, float]:
    """Largest absolute difference of two folders' gradients, and the largest gradient of the first."""
    one, two = (load_file(folder / "gradients.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    largest = max(float(tensor.abs().max()) for tensor in one.values())
    return max(float((one[name] - two[name]).abs().max()) for name in one), largest


def sharded_gradients(folder: Path) -> tuple[int, int]:
    """How many gradients were sharded, and how many there were."""
    whole = load_file(folder / "gradients.safetensors")
    return json.loads((folder / "sharded.json").read_text()), len(whole)
