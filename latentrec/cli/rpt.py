"""``latentrec rpt``: reinforcement post-training of a LARES model."""

from __future__ import annotations

import argparse

from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.tracking import step_run
from latentrec.training.rpt_config import RPTConfig

HELP = "LARES phase 2: reinforcement post-training on the ranking reward"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--dataset", required=True, help="dataset directory that the model was trained on")
    parser.add_argument("--model", required=True, help="LARES model directory (train-sequential)")
    parser.add_argument("--output", required=True, help="model directory to make")
    parser.add_argument("--checkpoint-root", help="directory or gs:// location; the same work resumes there")
    add_config_arguments(parser, RPTConfig)


def run(arguments: argparse.Namespace) -> None:
    """Train and print where the model is and what it reached on validation."""
    from latentrec.models import read_model
    from latentrec.training.rpt import train_rpt

    config = config_from_namespace(RPTConfig, arguments)
    with step_run("rpt", config=config, dataset=arguments.dataset) as step:
        manifest = train_rpt(
            config,
            dataset=arguments.dataset,
            model=arguments.model,
            output=arguments.output,
            sink=step.sink,
            checkpoint_root=arguments.checkpoint_root,
        )
        info, _ = read_model(arguments.output, verify=False)
        step.status.details.update(info.metrics)
    figures = " ".join(f"{name} {value:.4f}" for name, value in info.metrics.items())
    print(f"{arguments.output}: {info.system}, validation {figures}; fingerprint {manifest.fingerprint[:12]}")
