"""``latentrec grpo``: LatentR³ stage 2, reinforcement learning on titles or on the latent."""

from __future__ import annotations

import argparse

from latentrec.cli.training_command import add_training_arguments, run_training
from latentrec.core import config_from_namespace
from latentrec.training.latentr3.grpo_config import GRPOConfig

HELP = "LatentR3 stage 2: GRPO on titles, or on the latent beneath a frozen backbone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_training_arguments(
        parser, GRPOConfig, dataset="the dataset of stage 1", model="stage 1's model directory"
    )


def run(arguments: argparse.Namespace) -> None:
    """Train from a model of ``sft``."""
    from latentrec.training.latentr3.grpo import train_grpo

    config = config_from_namespace(GRPOConfig, arguments)
    run_training("grpo", train_grpo, config, arguments, model=arguments.model)
