"""``make pipeline-submit``: compile, upload as a version, start one run.

Parameters are checked here, with the same code as the preflight step, before anything reaches the cluster.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.steps.parameters import REVIEWS, check_parameters, locations
from latentrec.steps.status import exit_code_on_error
from latentrec.storage import is_local
from pipeline.cluster import Cluster, connect, experiment_id, quiet, run_settings, upload
from pipeline.compile import compile_pipelines
from pipeline.dags import SYSTEMS, parameter_defaults, parse_parameters, pipeline_of

BUILD = Path("build/pipelines")


def checked_parameters(system: str, text: str, settings_file: str = "") -> dict[str, Any]:
    """Parameters of a run on a cluster, from ``PARAMS`` and ``SETTINGS``.

    Raises:
        UserError: one is unknown, of the wrong type or out of range; an input is missing or only on this
            machine.
    """
    given = parse_parameters(system, text, settings_file)
    if not given.get(REVIEWS):
        raise UserError(
            f"PARAMS has no {REVIEWS}; give their location: PARAMS='{REVIEWS}=gs://bucket/reviews.json.gz'"
        )
    for name in (REVIEWS, "data_metadata"):
        for location in locations(given.get(name)):
            if is_local(location):
                raise UserError(
                    f"{name} is {location!r}, a path of this machine, which a cluster cannot read; copy it "
                    "to object storage and give gs://…, s3://…, minio://… (or an https:// location)"
                )
    every = {**parameter_defaults(pipeline_of(system)), **given}
    check_parameters(system, every, every.get("settings"))
    return given


def submit(system: str, parameters: Mapping[str, Any], cluster: Cluster) -> str:
    """Upload and start a run; returns its id.

    Args:
        system: name of the pipeline.
        parameters: those that differ from the pipeline's defaults.
        cluster: where.

    Raises:
        UserError: the cluster cannot be reached or refuses.
    """
    with connect(cluster) as client:
        (package,) = compile_pipelines(BUILD, (system,))
        version = upload(client, system, package)
        reported = "uploaded" if version.created else "already there"
        print(f"pipeline:   {system}, version {version.name} ({reported})")
        with quiet():
            run = client.run_pipeline(
                experiment_id(client, cluster),
                f"{system}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}",
                params=dict(parameters),
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                **run_settings(cluster),
            )
    print(f"run:        {run.run_id}")
    print(f"watch:      {cluster.run_link(run.run_id)}")
    return run.run_id


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Which pipeline, and with which parameters; ``make`` hands these over through the environment."""
    variable = os.environ.get
    parser.add_argument(
        "--system", default=variable("SYSTEM") or "latentr3", help=f"SYSTEM: one of {', '.join(SYSTEMS)}"
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
    arguments = parser.parse_args(argv)
    cluster = Cluster.from_environment()
    given = checked_parameters(arguments.system, arguments.params, arguments.settings)
    submit(arguments.system, given, cluster)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
