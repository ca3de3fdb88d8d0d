"""``latentrec traces``: reasoning traces from an OpenAI-compatible endpoint, or from the template."""

from __future__ import annotations

import argparse

from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.steps.step_run import step_run
from latentrec.training.rating.traces import TracesConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument(
        "--dataset", required=True, metavar="DIR", help="dataset directory, made with --task rating"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="JSON lines file to make")
    add_config_arguments(parser, TracesConfig)


def run(arguments: argparse.Namespace) -> None:
    """Make the traces and print what came of them and what they cost."""
    from latentrec.training.rating.traces import make_traces

    config = config_from_namespace(TracesConfig, arguments)
    with step_run("traces", config=config, dataset=arguments.dataset) as step:
        report = make_traces(
            config, dataset=arguments.dataset, output=arguments.output, metric_logger=step.metric_logger
        )
        step.status.details.update(report.figures())
    print(f"{arguments.output}: {report}")
