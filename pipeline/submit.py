"""``make pipeline-submit``: compile, upload as a version, start one run.

Parameters are checked here, with the same code as the preflight step, before anything reaches the cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.steps.parameters import REVIEWS, check_parameters, locations
from latentrec.steps.scoring_parameters import check_scoring
from latentrec.steps.status import exit_code_on_error
from latentrec.storage import is_local
from pipeline.cluster import Cluster, connect, experiment_id, run_body
from pipeline.compile import compile_pipelines
from pipeline.dags import BATCH_SCORING, PIPELINES, parameter_defaults, parse_parameters, pipeline_of
from pipeline.pipeline_versions import find_version, upload

BUILD = Path("build/pipelines")
LONGEST_DESCRIPTION = 255
"""Signs that KFP's database keeps of a run's description; a longer one is refused with HTTP 500."""


def checked_parameters(system: str, text: str, settings_file: str = "") -> dict[str, Any]:
    """Parameters of a run on a cluster, from ``PARAMS`` and ``SETTINGS``.

    Raises:
        UserError: one is unknown, of the wrong type or out of range; an input is missing or only on this
            machine.
    """
    given = parse_parameters(system, text, settings_file)
    if system == BATCH_SCORING:
        check_scoring(given)
        _refuse_local("users", given["users"])
        return given
    if not given.get(REVIEWS):
        raise UserError(
            f"PARAMS has no {REVIEWS}; give their location: PARAMS='{REVIEWS}=gs://bucket/reviews.json.gz'",
            code="config.missing_value",
        )
    for name in (REVIEWS, "data_metadata"):
        for location in locations(given.get(name)):
            _refuse_local(name, location)
    every = {**parameter_defaults(pipeline_of(system)), **given}
    check_parameters(system, every, every.get("settings"))
    return given


def _refuse_local(name: str, location: str) -> None:
    if is_local(location):
        raise UserError(
            f"{name} is {location!r}, a path of this machine, which a cluster cannot read; copy it "
            "to object storage and give gs://…, s3://…, minio://… (or an https:// location)",
            code="images.not_pullable",
        )


def submit(
    system: str, parameters: Mapping[str, Any], cluster: Cluster, *, name: str = "", version: str = ""
) -> str:
    """Upload and start a run; returns its id.

    Args:
        system: name of the pipeline.
        parameters: those that differ from the pipeline's defaults.
        cluster: where.
        name: of the run; empty: system, file of the reviews, and time.
        version: name of a version that is there; empty: this checkout's.

    Raises:
        UserError: the cluster cannot be reached or refuses.
    """
    import kfp_server_api as api

    with connect(cluster) as client:
        if version:
            found = find_version(client, system, version, namespace=cluster.namespace)
        else:
            (package,) = compile_pipelines(BUILD, (system,))
            found = upload(client, system, package, namespace=cluster.namespace)
        print(
            f"pipeline:   {system}, version {found.name} ({'uploaded' if found.created else 'already there'})"
        )
        run = client.runs.run_service_create_run(
            run=api.V2beta1Run(
                experiment_id=experiment_id(client, cluster),
                display_name=name or run_name(system, parameters),
                description=run_description(system, parameters, found.name),
                **run_body(cluster, parameters, found.pipeline_id, found.version_id),
            )
        )
    print(f"run:        {run.run_id}")
    print(f"watch:      {cluster.run_link(run.run_id)}")
    return run.run_id


def run_name(system: str, parameters: Mapping[str, Any]) -> str:
    """What a run is called in KFP's lists, of some 28 signs: what runs, on which data, since when (UTC)."""
    first = next(iter(locations(parameters.get(REVIEWS) or parameters.get("users"))), "")
    data = first.partition("?")[0].rstrip("/").rpartition("/")[2].partition(".")[0]
    return " ".join(word for word in (system, data, time.strftime("%m-%d %H:%M:%S", time.gmtime())) if word)


def run_description(system: str, parameters: Mapping[str, Any], version: str) -> str:
    """What a run was asked for, for its page."""
    given = [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in sorted(parameters.items())
    ]
    text = redact(f"{system}, version {version}: {' '.join(given)}")
    return text if len(text) <= LONGEST_DESCRIPTION else text[: LONGEST_DESCRIPTION - 1] + "…"


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Which pipeline, and with which parameters; ``make`` hands these over through the environment."""
    variable = os.environ.get
    parser.add_argument(
        "--system", default=variable("SYSTEM") or "latentr3", help=f"SYSTEM: one of {', '.join(PIPELINES)}"
    )
    parser.add_argument(
        "--params", default=variable("PARAMS", ""), help="PARAMS: 'data_k_core=1 sft.learning_rate=1e-4'"
    )
    parser.add_argument(
        "--settings", default=variable("SETTINGS", ""), metavar="FILE", help="SETTINGS: the same as YAML"
    )


def main(argv: list[str] | None = None) -> None:
    """Parse and submit."""
    parser = argparse.ArgumentParser(prog="make pipeline-submit", description=__doc__)
    add_run_arguments(parser)
    parser.add_argument("--name", default=os.environ.get("NAME", ""), help="NAME: of the run")
    parser.add_argument(
        "--version", default=os.environ.get("VERSION", ""), help="VERSION: of the pipeline, one that is there"
    )
    arguments = parser.parse_args(argv)
    cluster = Cluster.from_environment()
    given = checked_parameters(arguments.system, arguments.params, arguments.settings)
    submit(arguments.system, given, cluster, name=arguments.name, version=arguments.version)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
