"""``latentrec rating-grpo``: RecZero, and the second stage of RecOne."""

from __future__ import annotations

import argparse

from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.tracking import step_run
from latentrec.training.rating_config import RatingGRPOConfig

HELP = "GRPO on rule-based rating rewards, from a pre-trained or a cold-started model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--dataset", required=True, help="dataset directory, made with --task rating")
    parser.add_argument("--model", help="model of pretrain-rating or cold-start-sft; else --backbone")
    parser.add_argument("--output", required=True, help="model directory to make")
    parser.add_argument("--checkpoint-root", help="directory or gs:// location; the same work resumes there")
    add_config_arguments(parser, RatingGRPOConfig)


def run(arguments: argparse.Namespace) -> None:
    """Train and print reward, format validity and error on validation, before and after."""
    from latentrec.models import read_model
    from latentrec.training.rating_grpo import train_rating_grpo

    config = config_from_namespace(RatingGRPOConfig, arguments)
    with step_run("rating-grpo", config=config, dataset=arguments.dataset) as step:
        manifest = train_rating_grpo(
            config,
            dataset=arguments.dataset,
            model=arguments.model,
            output=arguments.output,
            sink=step.sink,
            checkpoint_root=arguments.checkpoint_root,
        )
        info, _ = read_model(arguments.output, verify=False)
        step.status.details.update(info.metrics)
    for name in ("reward", "format_valid", "format_valid_greedy", "mae_greedy"):
        before, after = (info.metrics.get(f"{when}_{name}") for when in ("start", "end"))
        print(f"{name:<20} {_shown(before):>8} -> {_shown(after):>8}   (validation)")
    print(f"{arguments.output}: {info.system}; fingerprint {manifest.fingerprint[:12]}")


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
