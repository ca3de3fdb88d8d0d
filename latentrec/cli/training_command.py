"""The training commands: one entry each, and what all share: flags, a tracked step, what is printed."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentrec.core import UserError, add_config_arguments, config_from_namespace
from latentrec.models import ModelInfo
from latentrec.steps.parameters import config_class
from latentrec.steps.step_run import step_run
from latentrec.storage import MANIFEST, Manifest, is_local
from latentrec.training.common.world import leave_process_group

RATING_DATASET = "dataset directory, made with --task rating"


@dataclass(frozen=True)
class TrainingCommand:
    """A command that trains and writes a model directory.

    Attributes:
        step: name of its configuration in :data:`latentrec.steps.parameters.STEPS`.
        function: the trainer, as ``module:function``; imported when it runs.
        dataset: help of ``--dataset``.
        inputs: further flags by the trainer's argument, with what ``add_argument`` takes.
        show: prints more of what was trained.
    """

    step: str
    function: str
    dataset: str = "dataset directory"
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    show: Callable[[ModelInfo], None] | None = None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the flags of the folders and those of the configuration."""
        parser.add_argument("--dataset", required=True, metavar="DIR", help=self.dataset)
        for name, options in self.inputs.items():
            parser.add_argument(f"--{name.replace('_', '-')}", **{"metavar": "DIR", **options})
        parser.add_argument("--output", required=True, metavar="DIR", help="model directory to make")
        parser.add_argument(
            "--overwrite",
            action="store_true",
            help="replace a finished model there without asking on a terminal",
        )
        parser.add_argument(
            "--checkpoint-root",
            metavar="DIR|gs://…",
            help="keep checkpoints here; the same work resumes from them",
        )
        add_config_arguments(parser, config_class(self.step))

    def run(self, arguments: argparse.Namespace) -> None:
        """Train inside a tracked step and print where the model is and what it reached on validation."""
        from latentrec.models import read_model

        config = config_from_namespace(config_class(self.step), arguments)
        module, _, name = self.function.partition(":")
        train: Callable[..., Manifest | None] = getattr(importlib.import_module(module), name)
        confirm_replacing(arguments.output, overwrite=arguments.overwrite)
        step_name = self.step.replace("_", "-") + (f"-{encoder}" if (encoder := _encoder(config)) else "")
        with step_run(step_name, config=config, dataset=arguments.dataset) as step:
            manifest = train(
                config,
                dataset=arguments.dataset,
                output=arguments.output,
                metric_logger=step.metric_logger,
                checkpoint_root=arguments.checkpoint_root,
                **{name: getattr(arguments, name) for name in self.inputs},
            )
            leave_process_group()
            if manifest is None:  # a process of a distributed run that is not the first
                return
            info, _ = read_model(arguments.output, verify=False)
            step.status.details.update({**manifest.counts, **info.metrics})
        figures = " ".join(f"{name} {value:.4f}" for name, value in info.metrics.items())
        print(
            f"{arguments.output}: {info.system}, validation {figures}; "
            f"fingerprint {manifest.fingerprint[:12]}"
        )
        if self.show is not None:
            self.show(info)


def confirm_replacing(output: str, *, overwrite: bool) -> None:
    """Ask before hours of work replace a finished model; without a terminal it is replaced.

    Raises:
        UserError: the user says no.
    """
    standing = Path(output).expanduser() / MANIFEST
    asked = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    if overwrite or not asked or not is_local(output) or not standing.is_file():
        return
    sys.stderr.write(f"{output} holds a finished model; replace it when the new one is whole? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError(
            f"--output {output}: kept as it is; choose another folder, or give --overwrite",
            code="output.declined",
        )


def _encoder(config: Any) -> str:
    """The encoder of a sequential model: each of a run is a step of its own."""
    return getattr(config, "encoder", "")


def _show_notes(info: ModelInfo) -> None:
    for note in info.notes:
        print(note)


def _show_before_and_after(info: ModelInfo) -> None:
    for name in ("reward", "format_valid", "format_valid_greedy", "mae_greedy"):
        values = (info.metrics.get(f"{when}_{name}") for when in ("start", "end"))
        before, after = ("none" if value is None else f"{value:.4f}" for value in values)
        print(f"{name:<20} {before:>8} -> {after:>8}   (validation)")


def _model(help_text: str, *, required: bool = True) -> dict[str, dict[str, Any]]:
    return {"model": {"required": required, "help": help_text}}


_TRAINING = "latentrec.training"
TRAINING_COMMANDS: dict[str, TrainingCommand] = {
    "sft": TrainingCommand(
        "sft",
        f"{_TRAINING}.latentr3.sft:train_sft",
        dataset="next-item dataset directory",
        inputs={
            "init_from": {
                "help": "model directory whose weights training begins with, in place of a fresh backbone; "
                "the learning rate stays --learning-rate's, and to go on with a trained model a lower one is "
                "right (3e-4)"
            }
        },
    ),
    "grpo": TrainingCommand(
        "grpo",
        f"{_TRAINING}.latentr3.grpo:train_grpo",
        dataset="the dataset of stage 1",
        inputs=_model("stage 1's model directory"),
    ),
    "title-objective": TrainingCommand(
        "title_objective",
        f"{_TRAINING}.latentr3.title_objective:train_title_objective",
        dataset="the dataset of stage 1",
        inputs=_model("stage 1's model directory"),
    ),
    "train-sequential": TrainingCommand("train_sequential", f"{_TRAINING}.sequential.train:train_sequential"),
    "rpt": TrainingCommand(
        "rpt",
        f"{_TRAINING}.sequential.rpt:train_rpt",
        dataset="dataset directory that the model was trained on",
        inputs=_model("LARES model directory (train-sequential)"),
    ),
    "pretrain-rating": TrainingCommand(
        "pretrain_rating",
        f"{_TRAINING}.rating.pretraining:pretrain_rating",
        dataset=RATING_DATASET,
        show=_show_notes,
    ),
    "cold-start-sft": TrainingCommand(
        "cold_start_sft",
        f"{_TRAINING}.rating.cold_start:train_cold_start",
        dataset=RATING_DATASET,
        inputs=_model("model directory of pretrain-rating; else --backbone", required=False)
        | {
            "traces": {
                "required": True,
                "metavar": "FILE",
                "help": "JSON lines file made by 'latentrec traces'",
            }
        },
    ),
    "rating-grpo": TrainingCommand(
        "rating_grpo",
        f"{_TRAINING}.rating.rating_grpo:train_rating_grpo",
        dataset=RATING_DATASET,
        inputs=_model("model of pretrain-rating or cold-start-sft; else --backbone", required=False),
        show=_show_before_and_after,
    ),
}
