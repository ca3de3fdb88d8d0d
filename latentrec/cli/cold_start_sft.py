"""``latentrec cold-start-sft``: RecOne's first stage."""

from __future__ import annotations

import argparse

from latentrec.cli.training_command import add_training_arguments, run_training
from latentrec.core import config_from_namespace
from latentrec.training.rating.rating_config import ColdStartConfig

HELP = "supervised fine-tuning on reasoning traces, from which RecOne's reinforcement learning starts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_training_arguments(
        parser,
        ColdStartConfig,
        dataset="dataset directory, made with --task rating",
        model="model directory of pretrain-rating; else --backbone",
        model_required=False,
    )
    parser.add_argument(
        "--traces", required=True, metavar="FILE", help="JSON lines file made by 'latentrec traces'"
    )


def run(arguments: argparse.Namespace) -> None:
    """Train; validity and error on validation are printed before and after."""
    from latentrec.training.rating.cold_start import train_cold_start

    config = config_from_namespace(ColdStartConfig, arguments)
    inputs = {"model": arguments.model, "traces": arguments.traces}
    run_training("cold-start-sft", train_cold_start, config, arguments, **inputs)
