"""``make run``: one whole pipeline on this machine, from reviews to a registered model and its table.

By default it runs on a small generated sample in the Amazon format, each step a process of this environment,
with an embedded MLflow below ``RUNS_DIR``. ``RUNNER=docker`` runs each step in its own container instead.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from latentrec.core import EXIT_BAD_INPUT, UserError
from latentrec.core.settings import LOCAL_STEPS_VARIABLE
from latentrec.models.presets import PRESETS
from latentrec.steps.parameters import REVIEWS
from latentrec.steps.status import EXIT_KEYBOARD, exit_code_on_error
from latentrec.storage import exclusive, is_local, local_path
from pipeline.dags import BATCH_SCORING, merge, parse_parameters, typed_parameters
from pipeline.local_runner import Outcome, RunFolders, run_pipeline
from pipeline.run_report import heading, report
from pipeline.side_by_side import steps_at_once
from pipeline.submit import add_run_arguments
from pipeline.tracking_uri import runs_folder

INPUTS = (REVIEWS, "data_metadata")
"""Parameters that name the input files."""

LOCAL_SETTINGS: dict[str, dict[str, Any]] = {
    "latentr3": {
        "sft_backbone": "tiny",
        "gpu_count": "0",
        "sft_batch_size": 32,
        "sft_num_train_epochs": 4,
        "settings": {"sft.learning_rate": 3e-3, "title_objective.num_train_epochs": 0.5},
    },
    "lares": {
        "sasrec_num_train_epochs": 20,
        "spt_num_train_epochs": 16,
        "rpt_num_train_epochs": 2,
        "rpt_learning_rate": 1e-4,
        "settings": {"spt.hidden_dropout": 0.2, "spt.attention_dropout": 0.2},
    },
    "reczero": {"pretrain_rating_backbone": "tiny", "gpu_count": "0"},
    "recone": {"pretrain_rating_backbone": "tiny", "gpu_count": "0"},
}
"""What `make run` sets where the user says nothing: models that two cores can train."""

SAMPLE_SETTINGS: dict[str, dict[str, Any]] = {
    "latentr3": {
        "sft_num_train_epochs": 1,
        "sft_batch_size": 32,
        "sasrec_num_train_epochs": 40,
        # What comes next hangs on the last few purchases there.
        "settings": {
            "sft.max_history": 4,
            "evaluate.alpha_samples": 150,
            "evaluate.other_latent_samples": 300,
        },
    },
}
"""And on the generated sample: epochs after which the whole run has taken a few minutes."""


OF_PRESETS = (
    "sft_batch_size",
    "sft_num_train_epochs",
    "sft.learning_rate",
    "sft.max_history",
    "title_objective.num_train_epochs",
)
"""Settings that suit a small preset from scratch, and no other backbone."""


def main(argv: list[str] | None = None) -> None:
    """Parse, run, print; exit codes: 0 done, 2 bad input, 1 failure."""
    arguments = _parser().parse_args(argv)
    if arguments.runner not in ("", "process", "docker"):
        raise UserError(
            f"RUNNER is '{arguments.runner}', expected process or docker", code="config.bad_value"
        )
    folders = RunFolders(runs_folder())
    given = _given(arguments)
    on_sample = not (arguments.reviews or arguments.category or given.get(REVIEWS))
    parameters = merge(local_settings(arguments.system, given, on_sample=on_sample), given)
    parameters |= _inputs(arguments, folders, parameters)
    print(heading(arguments.system, parameters, folders), flush=True)
    if arguments.runner == "docker":
        outcome = _run_in_containers(arguments.system, parameters, folders)
    else:
        outcome = run_pipeline(arguments.system, parameters, folders, at_once=_at_once(parameters))
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
    chosen = dict(LOCAL_SETTINGS.get(system, {}))
    if on_sample:
        chosen = merge(chosen, SAMPLE_SETTINGS.get(system, {}))
    backbone = given.get("sft_backbone") or given.get("settings", {}).get("sft.backbone")
    if (backbone or chosen.get("sft_backbone", "tiny")) in PRESETS:
        return chosen
    kept = {name: value for name, value in chosen.items() if name not in OF_PRESETS}
    fields = {name: value for name, value in kept.pop("settings", {}).items() if name not in OF_PRESETS}
    return {**kept, **({"settings": fields} if fields else {})}


def _at_once(parameters: Mapping[str, Any]) -> int:
    """Steps that run at the same time: two small models fit beside each other, two large ones may not."""
    fields = parameters.get("settings") or {}
    backbones = [
        str(parameters.get(f"{step}_backbone") or fields.get(f"{step}.backbone") or "")
        for step in ("sft", "pretrain_rating")
    ]
    small = all(backbone in ("", *PRESETS) for backbone in backbones)
    no_gpu = str(parameters.get("gpu_count", "0")) == "0"
    return steps_at_once(os.environ.get(LOCAL_STEPS_VARIABLE, ""), small=small and no_gpu)


SHORTHANDS = {"K_CORE": "data_k_core", "SPLIT": "data_split", "SEED": "seed"}
"""Variables of `make` that stand for one parameter."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    add_run_arguments(parser)
    for name, variable, text in (
        ("runner", "RUNNER", "process or docker"),
        ("reviews", "REVIEWS", "review files; default: a generated sample"),
        ("metadata", "META", "metadata files"),
        ("category", "CATEGORY", "fetch this category's public files"),
        ("category_year", "CATEGORY_YEAR", "their edition: 2014, 2018 (default) or 2023"),
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}", default=os.environ.get(variable, ""), help=f"{variable}: {text}"
        )
    return parser


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The user's parameters: the settings file, over it PARAMS and the shorthands."""
    system = arguments.system
    if system == BATCH_SCORING:
        raise UserError(
            f"SYSTEM is {system}, which trains nothing and runs on a cluster (make pipeline-submit); on this "
            "machine: latentrec batch-score",
            code="config.conflict",
        )
    short = {name: os.environ[variable] for variable, name in SHORTHANDS.items() if os.environ.get(variable)}
    given = parse_parameters(system, arguments.params, arguments.settings)
    twice = sorted(set(short) & set(parse_parameters(system, arguments.params)))
    if twice:
        variable = next(one for one, name in SHORTHANDS.items() if name == twice[0])
        raise UserError(f"{variable} and PARAMS both give {twice[0]}", code="config.given_twice")
    return merge(given, typed_parameters(system, short))


def _inputs(arguments: argparse.Namespace, folders: RunFolders, parameters: dict[str, Any]) -> dict[str, str]:
    if arguments.category_year and not arguments.category:
        raise UserError("CATEGORY_YEAR is given without CATEGORY", code="config.missing_value")
    if arguments.category and (arguments.reviews or arguments.metadata):
        raise UserError("give either CATEGORY or REVIEWS and META, not both", code="config.conflict")
    if arguments.metadata and not arguments.reviews:
        raise UserError("META is given without REVIEWS", code="config.missing_value")
    if arguments.category:
        from latentrec.data.amazon_downloads import FILES, fetch_category

        year = arguments.category_year or "2018"
        if year not in map(str, FILES):
            raise UserError(
                f"CATEGORY_YEAR is '{year}'; allowed: {', '.join(map(str, FILES))}", code="config.bad_value"
            )
        fetched = fetch_category(arguments.category, int(year), folders.root / "downloads")
        return dict(zip(INPUTS, fetched, strict=True))
    if arguments.reviews:
        return {REVIEWS: _absolute(arguments.reviews), "data_metadata": _absolute(arguments.metadata)}
    if parameters.get(REVIEWS):
        return {name: _absolute(str(parameters.get(name) or "")) for name in INPUTS}
    from latentrec.data import generate_sample

    seed = int(parameters.get("seed", 42))
    with exclusive(folders.root / "sample" / ".lock"):  # two runs at once may want the same sample
        reviews, metadata = generate_sample(folders.root / "sample" / f"seed-{seed}", seed=seed)
    return {REVIEWS: str(reviews), "data_metadata": str(metadata)}


def _absolute(locations: str) -> str:
    parts = [part.strip() for part in locations.split(",") if part.strip()]
    return ",".join(str(local_path(part).resolve()) if is_local(part) else part for part in parts)


def _run_in_containers(system: str, parameters: dict[str, Any], folders: RunFolders) -> Outcome:
    from pipeline.containers import check_images, container_runner, engine, tracking_server

    texts = (str(parameters.get(name) or "") for name in INPUTS)
    inputs = [part for text in texts for part in text.split(",") if part]
    with engine() as client:
        check_images(system, client)
        with tracking_server(folders), container_runner(folders, inputs=inputs) as runner:
            return run_pipeline(system, parameters, folders, runner=runner)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
