"""``latentrec rpt``: reinforcement post-training of a LARES model."""

from __future__ import annotations

import argparse

from latentrec.cli.training_command import add_training_arguments, run_training
from latentrec.core import config_from_namespace
from latentrec.training.sequential.rpt_config import RPTConfig

HELP = "LARES phase 2: reinforcement post-training on the ranking reward"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_training_arguments(
        parser,
        RPTConfig,
        dataset="dataset directory that the model was trained on",
        model="LARES model directory (train-sequential)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Train from a model of ``train-sequential --encoder lares``."""
    from latentrec.training.sequential.rpt import train_rpt

    config = config_from_namespace(RPTConfig, arguments)
    run_training("rpt", train_rpt, config, arguments, model=arguments.model)
