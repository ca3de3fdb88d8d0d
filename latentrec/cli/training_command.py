"""What every training command shares: its folders as flags, a tracked step, and what it prints at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentrec.core import UserError, add_config_arguments
from latentrec.models import ModelInfo
from latentrec.steps.step_run import step_run
from latentrec.storage import MANIFEST, Manifest, is_local


def add_training_arguments(
    parser: argparse.ArgumentParser,
    config_class: type,
    *,
    dataset: str = "dataset directory",
    model: str | None = None,
    model_required: bool = True,
) -> None:
    """Declare the flags of the folders and those of the configuration.

    Args:
        parser: of the command.
        config_class: dataclass of the options.
        dataset, model: help of the flags; without ``model`` the command takes no model.
        model_required: whether ``--model`` may be left out.
    """
    parser.add_argument("--dataset", required=True, metavar="DIR", help=dataset)
    if model is not None:
        parser.add_argument("--model", required=model_required, metavar="DIR", help=model)
    parser.add_argument("--output", required=True, metavar="DIR", help="model directory to make")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a finished model there without asking on a terminal"
    )
    parser.add_argument(
        "--checkpoint-root",
        metavar="DIR|gs://…",
        help="keep checkpoints here; the same work resumes from them",
    )
    add_config_arguments(parser, config_class)


def run_training(
    step_name: str,
    train: Callable[..., Manifest | None],
    config: Any,
    arguments: argparse.Namespace,
    **inputs: Any,
) -> ModelInfo | None:
    """Train inside a tracked step and print where the model is and what it reached on validation.

    Args:
        step_name: as tracking and the run's summary call it.
        train: the library's function.
        config: its configuration.
        arguments: the command's flags.
        inputs: what ``train`` takes besides dataset, output, metric_logger and checkpoint root.

    Returns:
        What the model directory says of itself; ``None`` on every process of a distributed run but the first.
    """
    from latentrec.models import read_model

    confirm_replacing(arguments.output, overwrite=arguments.overwrite)
    with step_run(step_name, config=config, dataset=arguments.dataset) as step:
        manifest = train(
            config,
            dataset=arguments.dataset,
            output=arguments.output,
            metric_logger=step.metric_logger,
            checkpoint_root=arguments.checkpoint_root,
            **inputs,
        )
        if manifest is None:
            return None
        info, _ = read_model(arguments.output, verify=False)
        step.status.details.update({**manifest.counts, **info.metrics})
    figures = " ".join(f"{name} {value:.4f}" for name, value in info.metrics.items())
    print(f"{arguments.output}: {info.system}, validation {figures}; fingerprint {manifest.fingerprint[:12]}")
    return info


def confirm_replacing(output: str, *, overwrite: bool) -> None:
    """Ask before hours of work replace a finished model; a script, which nobody can ask, replaces it.

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
