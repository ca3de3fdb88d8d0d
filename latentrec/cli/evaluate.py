"""``latentrec evaluate``: score models on the test split, compare, decide on promotion, report."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentrec.core import UserError, add_config_arguments, config_from_namespace
from latentrec.evaluation import Champion, EvaluateConfig
from latentrec.evaluation.gate_decision import GateDecision
from latentrec.evaluation.report.console_table import results_table
from latentrec.steps.step_run import step_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--dataset", required=True, metavar="DIR", help="next-item dataset directory")
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="NAME=DIR",
        help="a model directory and its name in the tables; repeat for each model, the challenger last; the "
        "same NAME again is another training run (seed) of it, and the first is the one to register",
    )
    parser.add_argument(
        "--champion",
        metavar="models:/NAME@champion|DIR",
        help="who holds the alias now; none registered yet is fine",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="evaluation directory to make")
    add_config_arguments(parser, EvaluateConfig)


def run(namespace: argparse.Namespace) -> None:
    """Evaluate and print the table and the verdict."""
    from latentrec.evaluation import evaluate  # torch: not for --help

    config = config_from_namespace(EvaluateConfig, namespace)
    models: dict[str, list[str]] = {}
    for name, directory in map(_named_directory, namespace.model):
        models.setdefault(name, []).append(directory)
    with step_run("evaluate", config=config) as step:
        champion = _champion(namespace.champion)
        evaluate(
            config,
            dataset=namespace.dataset,
            models=models,
            output=namespace.output,
            champion=champion,
            metric_logger=step.metric_logger,
        )
        gate = GateDecision.read(Path(namespace.output) / "gate.json")
        step.status.details |= {"verdict": gate.reason, "promote": gate.promote}
    print(results_table(namespace.output))
    print(f"\n{gate.reason}\nreport: {Path(namespace.output) / 'report.html'}")


def _named_directory(text: str) -> tuple[str, str]:
    name, separator, directory = text.partition("=")
    if not separator or not name or not directory:
        raise UserError(f"--model is {text!r}, expected NAME=DIR", code="config.bad_value")
    return name, directory


def _champion(text: str | None) -> Champion | None:
    if not text:
        return None
    if text.startswith("models:/"):
        from latentrec.registry.download import find_champion

        return find_champion(text)
    return Champion(directory=Path(text))
