"""``latentrec lares-depth``: a LARES model's quality, spread and cost over its depth of thought."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.evaluation.ranking.depth_config import DepthConfig
from latentrec.steps.step_run import step_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument("--dataset", required=True, metavar="DIR", help="dataset directory")
    parser.add_argument("--model", required=True, metavar="DIR", help="LARES model directory")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="directory to make: depth.json, depth.md, depth.svg"
    )
    add_config_arguments(parser, DepthConfig)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and print the table."""
    from latentrec.evaluation.ranking.depth import depth_study

    config = config_from_namespace(DepthConfig, arguments)
    with step_run("lares-depth", config=config, dataset=arguments.dataset) as step:
        depth_study(config, dataset=arguments.dataset, model=arguments.model, output=arguments.output)
        step.metric_logger.log_artifact(Path(arguments.output) / "depth.md")
    print((Path(arguments.output) / "depth.md").read_text(encoding="utf-8"), end="")
