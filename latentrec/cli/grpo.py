"""``latentrec grpo``: LatentR³ stage 2, reinforcement learning on the latent."""

from __future__ import annotations

import argparse

from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.tracking import step_run
from latentrec.training.latent_grpo_config import GRPOConfig

HELP = "LatentR3 stage 2: GRPO on the latent, LatentRATT learns, the backbone is frozen"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--dataset", required=True, metavar="DIR", help="the dataset of stage 1")
    parser.add_argument("--model", required=True, metavar="DIR", help="stage 1's model directory")
    parser.add_argument("--output", required=True, metavar="DIR", help="model directory to make")
    parser.add_argument(
        "--checkpoint-root", metavar="DIR|gs://…", help="keep checkpoints here and resume from them"
    )
    add_config_arguments(parser, GRPOConfig)


def run(namespace: argparse.Namespace) -> None:
    """Train and say where the model is."""
    config = config_from_namespace(GRPOConfig, namespace)
    with step_run("grpo", config=config, dataset=namespace.dataset) as step:
        from latentrec.training.latent_grpo import train_grpo

        manifest = train_grpo(
            config,
            dataset=namespace.dataset,
            model=namespace.model,
            output=namespace.output,
            sink=step.sink,
            checkpoint_root=namespace.checkpoint_root,
        )
        if manifest is not None:
            step.status.details |= manifest.counts
            print(f"{namespace.output}: {manifest.counts}")
