"""``make smoke-cluster``: a tiny run end to end, for the first person with a cluster.

It writes the generated sample to object storage (``SMOKE_LOCATION=gs://bucket/folder``), runs LatentR3 on it
with a model of a few thousand weights, runs it again to see the cache at work, and makes and deletes a
schedule. It prints one line a check and fails on the first run that fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.data import generate_sample
from latentrec.steps.status import exit_code_on_error
from latentrec.storage import is_local, join, store_for
from pipeline import schedule
from pipeline.cluster import Cluster, connect
from pipeline.dags import parse_parameters
from pipeline.submit import checked_parameters, submit

TINY = (
    "backbone=tiny k_core=1 sft_epochs=1 grpo_epochs=0.1 sasrec_epochs=2 gpu_count=0 "
    "model_name=latentr3-smoke"
)
FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
CACHED = ("SKIPPED", "CACHED")
SHOWN = {"data-prep": "prepare data"}
"""Display names, in small letters, that are not the task's own name with spaces."""


def upload_sample(location: str) -> dict[str, str]:
    """Write the generated sample under a location; returns ``reviews`` and ``metadata``.

    Raises:
        UserError: the location is missing, or of this machine.
    """
    if not location or is_local(location):
        raise UserError(
            f"SMOKE_LOCATION is {location!r}, expected a folder in object storage that the cluster reads, "
            "like gs://bucket/smoke"
        )
    with tempfile.TemporaryDirectory() as folder:
        made = generate_sample(Path(folder))
        found = {}
        for name, path in zip(("reviews", "metadata"), made, strict=True):
            found[name] = join(location, path.name)
            store_for(found[name]).upload_file(path, found[name])
    return found


def wait(run_id: str, cluster: Cluster, *, timeout_s: float, every_s: float = 15.0) -> dict[str, str]:
    """Wait for a run; returns the state of each task by display name, and of the run under ``""``.

    Raises:
        UserError: it has not ended in time.
    """
    end, shown = time.monotonic() + timeout_s, ""
    while True:
        with connect(cluster) as client:
            run = client.get_run(run_id)
        if run.state != shown:
            shown = run.state
            print(f"  {time.strftime('%H:%M:%S')} {run_id}: {shown}", flush=True)
        if run.state in FINAL:
            tasks = (run.run_details.task_details if run.run_details else None) or []
            return {"": run.state, **{task.display_name: task.state for task in tasks}}
        if time.monotonic() > end:
            link = cluster.run_link(run_id)
            raise UserError(f"run {run_id} is {run.state} after {timeout_s:.0f} s; see {link}")
        time.sleep(every_s)


def checks(states: Mapping[str, str], again: Mapping[str, str]) -> dict[str, bool]:
    """What two runs of the same work must show.

    Args:
        states: of the first run, as of :func:`wait`.
        again: of the second.
    """

    def state_of(states: Mapping[str, str], step: str) -> str:
        # Some installations tell a task's name, others the name that the UI shows.
        names = {step, step.replace("-", " "), SHOWN.get(step, step)}
        return next((state for name, state in states.items() if name.lower() in names), "absent")

    return {
        "the run succeeded": states[""] == "SUCCEEDED",
        "the run summary ran": state_of(states, "run-summary") == "SUCCEEDED",
        "the second run succeeded": again[""] == "SUCCEEDED",
        "its data preparation came from the cache": state_of(again, "data-prep") in CACHED,
        "its preflight did not": state_of(again, "preflight") == "SUCCEEDED",
        "its registration did not": state_of(again, "register") == "SUCCEEDED",
    }


def smoke(cluster: Cluster, params: str, location: str, *, timeout_s: float, every_s: float = 15.0) -> bool:
    """Run everything; prints a line a check and returns whether all passed."""
    inputs = upload_sample(location)
    words = " ".join(f"{name}={value}" for name, value in inputs.items())
    parameters: dict[str, Any] = parse_parameters("latentr3", TINY) | checked_parameters(
        "latentr3", f"{words} {params}"
    )
    first = submit("latentr3", parameters, cluster)
    states = wait(first, cluster, timeout_s=timeout_s, every_s=every_s)
    if states[""] != "SUCCEEDED":
        failed = [name for name, state in states.items() if name and state == "FAILED"]
        print(f"FAILED  the run is {states['']}; failed tasks: {', '.join(failed) or 'none told'}")
        return False
    second = submit("latentr3", parameters, cluster)
    results = checks(states, wait(second, cluster, timeout_s=timeout_s, every_s=every_s))
    made = schedule.create("latentr3", "0 0 3 1 1 ?", parameters, cluster)
    listed = {entry.recurring_run_id: entry for entry in schedule.list_schedules(cluster)}
    results["a schedule without catch-up was made"] = bool(made in listed and listed[made].no_catchup)
    schedule.change("delete", made, cluster)
    for what, good in results.items():
        print(f"{'ok' if good else 'FAILED':<8}{what}")
    return all(results.values())


def main(argv: list[str] | None = None) -> None:
    """Parse, run; exit code 1 when a check fails."""
    parser = argparse.ArgumentParser(prog="make smoke-cluster", description=__doc__)
    parser.add_argument("--params", default=os.environ.get("PARAMS", ""), help="further parameters")
    parser.add_argument("--location", default=os.environ.get("SMOKE_LOCATION", ""), help="gs://bucket/folder")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds for each run")
    arguments = parser.parse_args(argv)
    cluster = Cluster.from_environment()
    if not smoke(cluster, arguments.params, arguments.location, timeout_s=arguments.timeout):
        sys.exit(1)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
