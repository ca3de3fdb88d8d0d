"""``latentrec sft``: LatentR³ stage 1, supervised fine-tuning of backbone and LatentRATT."""

from __future__ import annotations

import argparse

from latentrec.cli.training_command import add_training_arguments, run_training
from latentrec.core import config_from_namespace
from latentrec.training.latentr3.sft_config import SFTConfig

HELP = "LatentR3 stage 1: supervised fine-tuning of backbone and LatentRATT (N = 0: the backbone alone)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_training_arguments(parser, SFTConfig, dataset="next-item dataset directory")
    parser.add_argument(
        "--init-from",
        metavar="DIR",
        help="model directory whose weights training begins with, in place of a fresh backbone; the learning "
        "rate stays --learning-rate's, and to go on with a trained model a lower one is right (3e-4)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Train from a fresh backbone, or from a model's weights."""
    from latentrec.training.latentr3.sft import train_sft

    config = config_from_namespace(SFTConfig, arguments)
    run_training("sft", train_sft, config, arguments, init_from=arguments.init_from)
