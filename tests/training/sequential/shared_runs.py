"""Small trainings of the encoders as one process of a world: ``python -m`` this module, with JSON."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from latentrec.core import Interrupted
from latentrec.training.common.world import leave_process_group
from latentrec.training.sequential import training_loop
from latentrec.training.sequential.processes import Objective
from latentrec.training.sequential.rpt import train_rpt
from latentrec.training.sequential.rpt_config import RPTConfig
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.train import train_sequential

SMALL = {"hidden_size": 16, "inner_dim": 32, "batch_size": 64, "num_train_epochs": 2, "learning_rate": 3e-3}
DROPPED = {"hidden_dropout": 0.3, "attention_dropout": 0.3}
POST = {"num_train_epochs": 2, "batch_size": 60, "filter_top": 12, "num_generations": 2, "k": 3}
SPT = SequentialConfig(encoder="lares", **SMALL, **DROPPED)
RUNS: dict[str, SequentialConfig | RPTConfig] = {
    "sasrec": SequentialConfig(**SMALL, **DROPPED),
    "sasrec_drawn": SequentialConfig(**SMALL, **DROPPED, num_negatives=8),
    "sasrec_few_rows": SequentialConfig(**{**SMALL, "batch_size": 9, "num_train_epochs": 1}, **DROPPED),
    "gru4rec": SequentialConfig(encoder="gru4rec", **SMALL, hidden_dropout=0.3),
    "caser": SequentialConfig(encoder="caser", **SMALL, hidden_dropout=0.3),
    "spt": SPT,
    "spt_few_rows": SPT.replace(batch_size=9, num_train_epochs=1),
    "spt_paper": SequentialConfig(encoder="lares", profile="paper", **{**SMALL, "num_train_epochs": 1}),
    "rpt_smoothed": RPTConfig(estimator="smoothed", **POST),
    "rpt_gaussian": RPTConfig(estimator="gaussian", **POST),
    "rpt_target_likelihood": RPTConfig(estimator="target_likelihood", **POST),
    "rpt_spt": RPTConfig(objective="spt", **POST),
}


class Recorder:
    """Keeps the loss of every step."""

    def __init__(self):
        self.losses: dict[int, float] = {}

    def log_metrics(self, metrics, step):
        if "train/loss" in metrics:
            self.losses[step] = metrics["train/loss"]

    def log_params(self, params):
        pass

    def log_artifact(self, path):
        pass


def train(name: str, folder: Path, dataset: str, spt: str, root: str | None = None) -> None:
    """One of :data:`RUNS` into ``folder/model``; the losses and the first step's gradients lie beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    first = os.environ.get("RANK", "0") == "0"
    config, recorder, backward = RUNS[name], Recorder(), Objective.backward
    kept: dict[str, torch.Tensor] = {}
    models: list[torch.nn.Module] = []
    make = Objective.__init__

    def made(self, model, *rest):
        models.append(model)
        make(self, model, *rest)

    def keeping(self, own):
        backward(self, own)
        if not kept:
            kept.update(
                {key: one.grad.detach().clone().contiguous() for key, one in models[-1].named_parameters()}
            )

    Objective.__init__, Objective.backward = made, keeping  # type: ignore[method-assign]
    training_loop.LOG_EVERY_STEPS = 1
    given = {
        "dataset": dataset,
        "output": folder / "model",
        "metric_logger": recorder,
        "checkpoint_root": root,
    }
    try:
        if isinstance(config, RPTConfig):
            made_here = train_rpt(config, model=spt, **given)
        else:
            made_here = train_sequential(config, **given)
    finally:
        Objective.__init__, Objective.backward = make, backward  # type: ignore[method-assign]
    assert (made_here is not None) == first
    if first:
        save_file(kept, folder / "gradients.safetensors")
        (folder / "losses.json").write_text(json.dumps(recorder.losses))


def main(given: dict) -> None:
    """Train ``runs``; ``end`` = [rank, step, signal] sends that process this signal after that step."""
    real, taken = training_loop._step, [0]

    def step(*arguments):
        real(*arguments)
        taken[0] += 1
        rank, last, number = given.get("end", (-1, -1, 0))
        if (int(os.environ.get("RANK", "0")), taken[0]) == (rank, last):
            os.kill(os.getpid(), number)

    training_loop._step = step
    try:
        for name in given["runs"]:
            folder = Path(given["output"]) / name
            train(name, folder, given["dataset"], given["spt"], given.get("checkpoints"))
    except Interrupted:
        assert given["end"][2] == signal.SIGTERM
    finally:
        training_loop._step = real
    leave_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
