"""``make smoke-cluster``: the acceptance of an installation that was just set up.

It writes the generated sample to object storage (``SMOKE_LOCATION=gs://bucket/folder``), and runs LatentR3
on it with a model of a few thousand weights: twice (the second time from the cache), on a schedule that
finds nothing new, with an accelerator where the cluster has one, and once more to delete a training pod and
terminate the run. It prints one line a check, writes a report that can be sent along with a question, and
fails if any check does.

What it cannot check is said: without ``kubectl`` no pod is looked at or deleted; without
``MLFLOW_TRACKING_URI`` the tracking server is not asked and the registered model is not loaded.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from latentrec.core import UserError
from latentrec.data import generate_sample
from latentrec.steps.parameters import REVIEWS
from latentrec.steps.status import exit_code_on_error
from latentrec.storage import is_local, join, store_for
from pipeline import smoke_checks
from pipeline.cluster import Cluster, backend_version
from pipeline.dags import parse_parameters
from pipeline.kubectl import Kubectl
from pipeline.smoke_checks import Smoke
from pipeline.smoke_report import Report
from pipeline.submit import checked_parameters

TINY = (
    "sft_backbone=tiny resources=small data_k_core=1 sft_num_train_epochs=1 "
    "title_objective.num_train_epochs=0.1 sasrec_num_train_epochs=2 gpu_count=0 "
    "registry_model_name=latentr3-smoke"
)
REPORT = Path("smoke-cluster.json")


def upload_sample(location: str) -> dict[str, str]:
    """Write the generated sample under a location; returns the parameters that name it.

    Raises:
        UserError: the location is missing, or of this machine.
    """
    if not location or is_local(location):
        raise UserError(
            f"SMOKE_LOCATION is {location!r}, expected a folder in object storage that the cluster reads, "
            "like gs://bucket/smoke",
            code="config.bad_value",
        )
    with tempfile.TemporaryDirectory() as folder:
        made = generate_sample(Path(folder))
        found = {}
        for name, path in zip((REVIEWS, "data_metadata"), made, strict=True):
            found[name] = join(location, path.name)
            store_for(found[name]).upload_file(path, found[name])
    return found


def smoke(cluster: Cluster, params: str, location: str, *, timeout_s: float, every_s: float = 15.0) -> Report:
    """Run everything; prints a line a check.

    Args:
        cluster: the installation.
        params: further parameters of the runs, as ``PARAMS``.
        location: folder in object storage for the sample.
        timeout_s: seconds for each run.
        every_s: seconds between two questions to the API.
    """
    report = Report(host=cluster.host)
    report.versions["kfp backend"] = backend_version(cluster)
    missing = Kubectl.problem()
    kubectl = None if missing else Kubectl(cluster.namespace or "kubeflow")
    if kubectl is not None:
        report.versions["kubernetes"] = kubectl.version()
    words = " ".join(f"{name}={value}" for name, value in upload_sample(location).items())
    parameters = parse_parameters("latentr3", TINY) | checked_parameters("latentr3", f"{words} {params}")
    run = Smoke(
        cluster, parameters, report, kubectl=kubectl, why_not=missing, timeout_s=timeout_s, every_s=every_s
    )
    if smoke_checks.two_runs(run):
        smoke_checks.registered_model(run)
        smoke_checks.schedule_without_new_data(run)
        smoke_checks.accelerators(run)
        smoke_checks.lost_pod_and_termination(run)
    return report


def main(argv: list[str] | None = None) -> None:
    """Parse, run, write the report; exit code 1 when a check fails."""
    parser = argparse.ArgumentParser(prog="make smoke-cluster", description=__doc__)
    parser.add_argument("--params", default=os.environ.get("PARAMS", ""), help="further parameters")
    parser.add_argument("--location", default=os.environ.get("SMOKE_LOCATION", ""), help="gs://bucket/folder")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds for each run")
    parser.add_argument("--report", type=Path, default=REPORT, help="file for the report")
    arguments = parser.parse_args(argv)
    cluster = Cluster.from_environment()
    report = smoke(cluster, arguments.params, arguments.location, timeout_s=arguments.timeout)
    report.write(arguments.report)
    print(f"\n{report.summary()}; report: {arguments.report}")
    if not report.good:
        sys.exit(1)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
