"""``latentrec sft``: LatentR³ stage 1, supervised fine-tuning of backbone and LatentRATT."""

from __future__ import annotations

import argparse

from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.tracking import step_run
from latentrec.training.sft_config import SFTConfig

HELP = "LatentR3 stage 1: supervised fine-tuning of backbone and LatentRATT (N = 0: the backbone alone)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--dataset", required=True, metavar="DIR", help="next-item dataset directory")
    parser.add_argument("--output", required=True, metavar="DIR", help="model directory to make")
    parser.add_argument(
        "--init-from",
        metavar="DIR",
        help="model directory whose weights training begins with, in place of a fresh backbone; the learning "
        "rate stays --learning-rate's, and to go on with a trained model a lower one is right (3e-4)",
    )
    parser.add_argument(
        "--checkpoint-root", metavar="DIR|gs://…", help="keep checkpoints here and resume from them"
    )
    add_config_arguments(parser, SFTConfig)


def run(namespace: argparse.Namespace) -> None:
    """Train and say where the model is."""
    config = config_from_namespace(SFTConfig, namespace)
    with step_run("sft", config=config, dataset=namespace.dataset) as step:
        from latentrec.training.sft import train_sft

        manifest = train_sft(
            config,
            dataset=namespace.dataset,
            output=namespace.output,
            init_from=namespace.init_from,
            sink=step.sink,
            checkpoint_root=namespace.checkpoint_root,
        )
        if manifest is not None:
            step.status.details |= manifest.counts
            print(f"{namespace.output}: {manifest.counts}")
