"""``latentrec rating-grpo``: RecZero, and the second stage of RecOne."""

from __future__ import annotations

import argparse

from latentrec.cli.training_command import add_training_arguments, run_training
from latentrec.core import config_from_namespace
from latentrec.training.rating.rating_config import RatingGRPOConfig

HELP = "GRPO on rule-based rating rewards, from a pre-trained or a cold-started model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    add_training_arguments(
        parser,
        RatingGRPOConfig,
        dataset="dataset directory, made with --task rating",
        model="model of pretrain-rating or cold-start-sft; else --backbone",
        model_required=False,
    )


def run(arguments: argparse.Namespace) -> None:
    """Train and print reward, format validity and error on validation, before and after."""
    from latentrec.training.rating.rating_grpo import train_rating_grpo

    config = config_from_namespace(RatingGRPOConfig, arguments)
    info = run_training("rating-grpo", train_rating_grpo, config, arguments, model=arguments.model)
    if info is None:
        return
    for name in ("reward", "format_valid", "format_valid_greedy", "mae_greedy"):
        before, after = (info.metrics.get(f"{when}_{name}") for when in ("start", "end"))
        print(f"{name:<20} {_shown(before):>8} -> {_shown(after):>8}   (validation)")


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
