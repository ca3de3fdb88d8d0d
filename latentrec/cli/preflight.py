"""``latentrec preflight``: everything that can be checked before anything costs."""

from __future__ import annotations

import argparse
from typing import Any

from latentrec.core import UserError
from latentrec.core.config_values import parse_pairs, read_settings, suggestion
from latentrec.steps.parameters import REVIEWS, SYSTEMS, setting_names, targets_of
from latentrec.steps.preflight import run_preflight
from latentrec.steps.run_config import RunConfig
from latentrec.steps.status import step_status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--system", default="latentr3", choices=tuple(SYSTEMS), help="the pipeline")
    parser.add_argument("--reviews", required=True, metavar="URI", help="review files; several with commas")
    parser.add_argument("--metadata", default="", metavar="URI", help="metadata files; several with commas")
    parser.add_argument(
        "--params",
        default="",
        metavar="TEXT",
        help="'data_k_core=1 gpu_type=nvidia-l4 sft.learning_rate=1e-4'",
    )
    parser.add_argument("--settings", default="", metavar="FILE", help="YAML file of the same")


def run(namespace: argparse.Namespace) -> None:
    """Check and print."""
    given = read_settings(namespace.settings) if namespace.settings else {}
    given |= parse_pairs(namespace.params, "--params")
    given |= {REVIEWS: namespace.reviews, "data_metadata": namespace.metadata}
    with step_status("preflight") as status:
        checked = run_preflight(_parameters(namespace.system, given))
        status.details.update(checked.details)
    print(f"inputs_fingerprint: {checked.inputs_fingerprint}")


def _parameters(system: str, given: dict[str, Any]) -> dict[str, Any]:
    """The pipeline's parameters, with every ``step.field`` among the settings.

    Raises:
        UserError: a name is neither.
    """
    settings = {name: value for name, value in given.items() if "." in name}
    rest = {name: value for name, value in given.items() if "." not in name}
    for name in rest:
        if name not in RunConfig.model_fields and not targets_of(name, system):
            known = [*RunConfig.model_fields, *setting_names(system)]
            raise UserError(
                f"{system} has no parameter '{name}'{suggestion(name, known)}", code="config.unknown_name"
            )
    return {"system": system, **rest, "settings": settings}
