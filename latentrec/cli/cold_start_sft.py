"""``latentrec cold-start-sft``: RecOne's first stage."""

from __future__ import annotations

import argparse

from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.tracking import step_run
from latentrec.training.rating_config import ColdStartConfig

HELP = "supervised fine-tuning on reasoning traces, from which RecOne's reinforcement learning starts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--dataset", required=True, help="dataset directory, made with --task rating")
    parser.add_argument("--traces", required=True, help="JSON lines file made by 'latentrec traces'")
    parser.add_argument("--model", help="model directory of pretrain-rating; else --backbone")
    parser.add_argument("--output", required=True, help="model directory to make")
    parser.add_argument("--checkpoint-root", help="directory or gs:// location; the same work resumes there")
    add_config_arguments(parser, ColdStartConfig)


def run(arguments: argparse.Namespace) -> None:
    """Train and print format validity and error on validation, before and after."""
    from latentrec.models import read_model
    from latentrec.training.cold_start import train_cold_start

    config = config_from_namespace(ColdStartConfig, arguments)
    with step_run("cold-start-sft", config=config, dataset=arguments.dataset) as step:
        manifest = train_cold_start(
            config,
            dataset=arguments.dataset,
            traces=arguments.traces,
            model=arguments.model,
            output=arguments.output,
            sink=step.sink,
            checkpoint_root=arguments.checkpoint_root,
        )
        info, _ = read_model(arguments.output, verify=False)
        step.status.details.update(info.metrics)
    figures = " ".join(f"{name} {value:.4f}" for name, value in info.metrics.items())
    print(f"{arguments.output}: {info.system}, validation {figures}; fingerprint {manifest.fingerprint[:12]}")
