"""``latentrec grpo``: LatentR³ stage 2, reinforcement learning on noised latents."""

from __future__ import annotations

import argparse

from latentrec.cli.training_command import add_training_arguments, run_training
from latentrec.core import config_from_namespace
from latentrec.training.latentr3.grpo_config import LatentGRPOConfig

HELP = "LatentR3 stage 2: GRPO on the latent beneath a frozen backbone (profile paper: as published)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_training_arguments(
        parser, LatentGRPOConfig, dataset="the dataset of stage 1", model="stage 1's model directory"
    )


def run(arguments: argparse.Namespace) -> None:
    """Train from a model of ``sft``."""
    from latentrec.training.latentr3.grpo import train_grpo

    config = config_from_namespace(LatentGRPOConfig, arguments)
    run_training("grpo", train_grpo, config, arguments, model=arguments.model)
