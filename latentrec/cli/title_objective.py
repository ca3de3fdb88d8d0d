"""``latentrec title-objective``: LatentR³ stage 2, ascent on a function of the true title's probability."""

from __future__ import annotations

import argparse

from latentrec.cli.training_command import add_training_arguments, run_training
from latentrec.core import config_from_namespace
from latentrec.training.latentr3.title_objective_config import TitleObjectiveConfig

HELP = "LatentR3 stage 2 on titles: arcsin, generalized cross-entropy, or GRPO's expectation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_training_arguments(
        parser, TitleObjectiveConfig, dataset="the dataset of stage 1", model="stage 1's model directory"
    )


def run(arguments: argparse.Namespace) -> None:
    """Train from a model of ``sft``."""
    from latentrec.training.latentr3.title_objective import train_title_objective

    config = config_from_namespace(TitleObjectiveConfig, arguments)
    run_training("title-objective", train_title_objective, config, arguments, model=arguments.model)
