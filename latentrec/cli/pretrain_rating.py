"""``latentrec pretrain-rating``: the small placeholder for an instruct model, or the name of a real one."""

from __future__ import annotations

import argparse

from latentrec.cli.training_command import add_training_arguments, run_training
from latentrec.core import config_from_namespace
from latentrec.training.rating.pretrain_config import PretrainRatingConfig

HELP = "pre-train the small placeholder for an instruct model, or name a real one to start from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_training_arguments(parser, PretrainRatingConfig, dataset="dataset directory, made with --task rating")


def run(arguments: argparse.Namespace) -> None:
    """Pre-train; the format rate printed is where reinforcement learning starts."""
    from latentrec.training.rating.pretraining import pretrain_rating

    config = config_from_namespace(PretrainRatingConfig, arguments)
    info = run_training("pretrain-rating", pretrain_rating, config, arguments)
    for note in info.notes if info else []:
        print(note)
