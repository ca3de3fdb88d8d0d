"""``latentrec train-sequential``: popularity, GRU4Rec, Caser, SASRec, LARES (SPT)."""

from __future__ import annotations

import argparse

from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.tracking import step_run
from latentrec.training.sequential_config import SequentialConfig

HELP = "train popularity or an ID-based sequence model, early-stopped on validation NDCG@10"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--dataset", required=True, help="dataset directory")
    parser.add_argument("--output", required=True, help="model directory to make")
    parser.add_argument("--checkpoint-root", help="directory or gs:// location; the same work resumes there")
    add_config_arguments(parser, SequentialConfig)


def run(arguments: argparse.Namespace) -> None:
    """Train and print where the model is and what it reached on validation."""
    from latentrec.models import read_model
    from latentrec.training.sequential import train_sequential

    config = config_from_namespace(SequentialConfig, arguments)
    with step_run(f"train-sequential-{config.encoder}", config=config, dataset=arguments.dataset) as step:
        manifest = train_sequential(
            config,
            dataset=arguments.dataset,
            output=arguments.output,
            sink=step.sink,
            checkpoint_root=arguments.checkpoint_root,
        )
        info, _ = read_model(arguments.output, verify=False)
        step.status.details.update(info.metrics)
    figures = " ".join(f"{name} {value:.4f}" for name, value in info.metrics.items())
    print(f"{arguments.output}: {info.system}, validation {figures}; fingerprint {manifest.fingerprint[:12]}")
