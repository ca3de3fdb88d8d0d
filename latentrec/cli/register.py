"""``latentrec register``: a version in the registry, alias challenger, champion by the gate."""

from __future__ import annotations

import argparse

from latentrec.registry.registration import register_model
from latentrec.steps.step_run import step_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--model", required=True, metavar="DIR", help="model directory")
    parser.add_argument(
        "--evaluation", required=True, metavar="DIR", help="evaluation in which it was the challenger"
    )
    parser.add_argument("--name", required=True, help="registered model, for example latentr3")
    parser.add_argument(
        "--dataset",
        metavar="DIR",
        help="dataset that it was trained on; the next run compares its data with it",
    )
    parser.add_argument(
        "--catalogue",
        metavar="FILE",
        help="items.parquet to serve (default: the one that it was trained with)",
    )
    parser.add_argument(
        "--assistant",
        metavar="DIR",
        help="for d3 decoding: the assistant's model directory, served with the model",
    )


def run(namespace: argparse.Namespace) -> None:
    """Register and say which version it is, what the gate did and why."""
    with step_run("register") as step:
        outcome = register_model(
            model_dir=namespace.model,
            evaluation_dir=namespace.evaluation,
            name=namespace.name,
            run_id=step.mlflow_run_id,
            dataset_dir=namespace.dataset,
            catalogue=namespace.catalogue,
            assistant_dir=namespace.assistant,
        )
        step.set_tags({"registered": outcome.model.uri, "gate.verdict": outcome.event.action})
        step.status.details |= {
            "registered": outcome.model.uri,
            "promoted": outcome.promoted,
            "verdict": outcome.event.reason,
        }
    model = outcome.model
    print(f"registered: {model.uri}")
    print(f"aliases:    {', '.join(sorted(model.aliases)) or 'none'}")
    print(f"gate:       {outcome.event.reason}")
    print(f"load it:    mlflow.pyfunc.load_model('models:/{model.name}@{_best_alias(model.aliases)}')")


def _best_alias(aliases: tuple[str, ...]) -> str:
    return "champion" if "champion" in aliases else "challenger"
