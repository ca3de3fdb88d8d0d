"""``latentrec train-sequential``: popularity, GRU4Rec, Caser, SASRec, LARES (SPT)."""

from __future__ import annotations

import argparse

from latentrec.cli.training_command import add_training_arguments, run_training
from latentrec.core import config_from_namespace
from latentrec.training.sequential.sequential_config import SequentialConfig

HELP = "train popularity or an ID-based sequence model, early-stopped on validation NDCG@10"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_training_arguments(parser, SequentialConfig)


def run(arguments: argparse.Namespace) -> None:
    """Train the encoder that is asked for."""
    from latentrec.training.sequential.train import train_sequential

    config = config_from_namespace(SequentialConfig, arguments)
    run_training(f"train-sequential-{config.encoder}", train_sequential, config, arguments)
