"""``latentrec pretrain-rating``: the small stand-in for an instruct model, or the name of a real one."""

from __future__ import annotations

import argparse

from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.tracking import step_run
from latentrec.training.rating_config import PretrainRatingConfig

HELP = "pre-train the small stand-in for an instruct model, or name a real one to start from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--dataset", required=True, help="dataset directory, made with --task rating")
    parser.add_argument("--output", required=True, help="model directory to make")
    parser.add_argument("--checkpoint-root", help="directory or gs:// location; the same work resumes there")
    add_config_arguments(parser, PretrainRatingConfig)


def run(arguments: argparse.Namespace) -> None:
    """Pre-train and print the format rate reached, which is where reinforcement learning starts."""
    from latentrec.models import read_model
    from latentrec.training.rating_pretrain import pretrain_rating

    config = config_from_namespace(PretrainRatingConfig, arguments)
    with step_run("pretrain-rating", config=config, dataset=arguments.dataset) as step:
        manifest = pretrain_rating(
            config,
            dataset=arguments.dataset,
            output=arguments.output,
            sink=step.sink,
            checkpoint_root=arguments.checkpoint_root,
        )
        info, _ = read_model(arguments.output, verify=False)
        step.status.details.update(info.metrics)
    for note in info.notes:
        print(note)
    figures = " ".join(f"{name} {value:.4f}" for name, value in info.metrics.items())
    print(f"{arguments.output}: {info.system} {figures}; fingerprint {manifest.fingerprint[:12]}")
