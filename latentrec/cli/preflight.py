"""``latentrec preflight``: everything that can be checked before anything costs."""

from __future__ import annotations

import argparse
import json

from latentrec.core import UserError
from latentrec.steps.parameters import FIELDS, SYSTEMS
from latentrec.steps.preflight import run_preflight
from latentrec.steps.status import step_status

HELP = "check inputs, storage, tracking server, backbone, memory and parameters; print inputs_fingerprint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--system", default="latentr3", choices=tuple(SYSTEMS), help="the pipeline")
    parser.add_argument("--reviews", required=True, help="review files; several with commas")
    parser.add_argument("--metadata", default="", help="metadata files; several with commas")
    parser.add_argument("--data-cutoff", default="", help="day or time that ends the data")
    parser.add_argument("--options", default="{}", metavar="JSON", help='{"sft": {"epochs": 2}}')
    for name in FIELDS:
        parser.add_argument("--" + name.replace("_", "-"), default=None, help=f"pipeline parameter {name}")
    for name, text in (
        ("gpu-type", "accelerator, e.g. nvidia-l4: the backbone must fit into it"),
        ("gpu-count", "accelerators a training pod"),
        ("train-memory", "memory of a training pod, e.g. 32Gi"),
    ):
        parser.add_argument("--" + name, default=None, help=text)


def run(namespace: argparse.Namespace) -> None:
    """Check and print."""
    parameters = {name: value for name, value in vars(namespace).items() if value is not None}
    try:
        parameters["options"] = json.loads(namespace.options)
    except ValueError as error:
        raise UserError(f"--options is not JSON: {error}") from None
    with step_status("preflight") as status:
        checked = run_preflight(parameters)
        status.details.update(checked.details)
    print(f"inputs_fingerprint: {checked.inputs_fingerprint}")
