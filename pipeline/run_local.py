"""``make run``: one whole pipeline on this machine, from reviews to a registered model and its table.

By default it runs on a small generated sample in the Amazon format, each step a process of this environment,
with an embedded MLflow below ``RUNS_DIR``. ``RUNNER=docker`` runs each step in its own container instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from latentrec.core import EXIT_BAD_INPUT, UserError
from latentrec.core.redact import redact
from latentrec.models.presets import PRESETS
from latentrec.steps.status import EXIT_KEYBOARD, exit_code_on_error
from latentrec.storage import exclusive, is_local, local_path
from pipeline.dags import SYSTEMS, parse_parameters, typed_parameters
from pipeline.local_runner import Outcome, RunFolders, run_pipeline
from pipeline.run_report import heading, report
from pipeline.tracking_uri import runs_folder

LOCAL_SETTINGS: dict[str, dict[str, Any]] = {
    "latentr3": {
        "backbone": "tiny",
        "gpu_count": "0",
        "sft_batch_size": 32,
        "sft_epochs": 4,
        "sft_learning_rate": 3e-3,
        "grpo_epochs": 0.5,
    },
    "lares": {
        "sasrec_epochs": 20,
        "lares_epochs": 16,
        "rpt_epochs": 2,
        "rpt_learning_rate": 1e-4,
        "options": {"lares": {"hidden_dropout": 0.2, "attention_dropout": 0.2}},
    },
    "reczero": {"backbone": "tiny", "gpu_count": "0"},
    "recone": {"backbone": "tiny", "gpu_count": "0"},
}
"""What `make run` sets where the user says nothing: models that two cores can train."""

SAMPLE_SETTINGS: dict[str, dict[str, Any]] = {
    "latentr3": {
        "sft_epochs": 1,
        "sft_batch_size": 16,
        "sft_learning_rate": 2e-3,
        "grpo_epochs": 0.5,
        "sasrec_epochs": 40,
    },
}
"""And on the generated sample: epochs after which the whole run has taken a few minutes."""


OF_PRESETS = ("sft_batch_size", "sft_epochs", "sft_learning_rate", "grpo_epochs")
"""Settings that suit a small preset from scratch, and no other backbone."""


def main(argv: list[str] | None = None) -> None:
    """Parse, run, print; exit codes: 0 done, 2 bad input, 1 failure."""
    arguments = _parser().parse_args(argv)
    folders = RunFolders(runs_folder())
    given = parse_parameters(arguments.system, arguments.params)
    pairs = dict(text.partition("=")[::2] for text in arguments.set)
    given |= typed_parameters(arguments.system, pairs)
    on_sample = not (arguments.reviews or arguments.category)
    parameters = local_settings(arguments.system, given, on_sample=on_sample) | given
    parameters |= _inputs(arguments, folders, parameters)
    print(heading(arguments.system, parameters, folders), flush=True)
    print(f"settings: {_in_a_line(parameters)}", flush=True)
    if arguments.runner == "docker":
        outcome = _run_in_containers(arguments.system, parameters, folders)
    else:
        outcome = run_pipeline(arguments.system, parameters, folders)
    print(report(outcome, folders), flush=True)
    if outcome.interrupted:
        sys.exit(EXIT_KEYBOARD)
    if not outcome.succeeded:
        failed = outcome.failed_step
        sys.exit(EXIT_BAD_INPUT if failed is not None and failed.state == "bad_input" else 1)


def local_settings(system: str, given: Mapping[str, Any], *, on_sample: bool) -> dict[str, Any]:
    """What a local run sets beneath the parameters that the user gave.

    Epochs, batches and learning rates here are those of small presets: a backbone that was trained before
    keeps the pipeline's own.
    """
    settings = dict(LOCAL_SETTINGS.get(system, {}))
    if on_sample:
        settings |= SAMPLE_SETTINGS.get(system, {})
    if given.get("backbone", settings.get("backbone", "tiny")) in PRESETS:
        return settings
    return {name: value for name, value in settings.items() if name not in OF_PRESETS}


def _in_a_line(parameters: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in sorted(parameters.items()) if value not in ("", None, {}, [])}
    return redact(", ".join(f"{name}={value}" for name, value in shown.items()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--system", default="latentr3", help=f"one of {', '.join(SYSTEMS)}")
    parser.add_argument("--runner", default="process", choices=("process", "docker"))
    parser.add_argument("--reviews", default="", help="review files; default: a generated sample")
    parser.add_argument("--metadata", default="", help="metadata files")
    parser.add_argument("--category", default="", help="fetch this category's public files")
    parser.add_argument("--params", default="", help="'name=value name=value': any pipeline parameter")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one parameter")
    return parser


def _inputs(arguments: argparse.Namespace, folders: RunFolders, parameters: dict[str, Any]) -> dict[str, str]:
    if arguments.category and (arguments.reviews or arguments.metadata):
        raise UserError("give either CATEGORY or REVIEWS and META, not both")
    if arguments.metadata and not arguments.reviews:
        raise UserError("META is given without REVIEWS")
    if arguments.category:
        from latentrec.data.amazon_downloads import fetch_category

        fetched = fetch_category(arguments.category, 2018, folders.root / "downloads")
        return dict(zip(("reviews", "metadata"), fetched, strict=True))
    if arguments.reviews:
        return {"reviews": _absolute(arguments.reviews), "metadata": _absolute(arguments.metadata)}
    from latentrec.data import generate_sample

    seed = int(parameters.get("seed", 42))
    with exclusive(folders.root / "sample" / ".lock"):  # two runs at once may want the same sample
        reviews, metadata = generate_sample(folders.root / "sample" / f"seed-{seed}", seed=seed)
    return {"reviews": str(reviews), "metadata": str(metadata)}


def _absolute(locations: str) -> str:
    parts = [part.strip() for part in locations.split(",") if part.strip()]
    return ",".join(str(local_path(part).resolve()) if is_local(part) else part for part in parts)


def _run_in_containers(system: str, parameters: dict[str, Any], folders: RunFolders) -> Outcome:
    from pipeline.containers import check_images, container_runner, engine, tracking_server

    texts = (str(parameters.get(name) or "") for name in ("reviews", "metadata"))
    inputs = [part for text in texts for part in text.split(",") if part]
    with engine() as client:
        check_images(system, client)
        with tracking_server(folders), container_runner(folders, inputs=inputs) as runner:
            return run_pipeline(system, parameters, folders, runner=runner)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
