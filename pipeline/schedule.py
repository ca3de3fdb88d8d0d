"""``make pipeline-schedule``: recurring runs, and pausing, resuming, listing and deleting them.

A recurring run never catches up on times that it missed, never overlaps itself, and trains on the data up
to the time it was scheduled for. That time is a constant of the preflight step in the scheduled version of
the pipeline (``{{$.pipeline_job_schedule_time_utc}}``): KFP fills it in where a task has it as a constant,
not where it comes as a parameter of the run. An installation that does not know the placeholder leaves it
as it is, and preflight stops the run with a message before anything costs.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl

from latentrec.core import UserError
from latentrec.steps.status import exit_code_on_error
from pipeline.cluster import Cluster, connect, experiment_id, run_settings, upload
from pipeline.compile import compile_pipelines
from pipeline.submit import BUILD, add_run_arguments, checked_parameters

DEFAULT_CRON = "0 0 3 * * 1"
"""Mondays at 03:00 UTC: second, minute, hour, day of month, month, day of week."""

_RANGES = (
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 6),
)
_NAMES = {
    "month": ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    "day of week": ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
}


def check_cron(text: str) -> str:
    """A cron expression of six fields, as KFP reads it; returned with single spaces.

    Raises:
        UserError: naming the field that is wrong. Five fields, which most other programs take, would shift
            every field by one.
    """
    fields = text.split()
    if len(fields) != 6:
        hint = f"; for the usual five fields write '0 {text.strip()}'" if len(fields) == 5 else ""
        raise UserError(
            f"CRON is {text!r}, which has {len(fields)} fields, expected six: second minute hour "
            f"day-of-month month day-of-week, for example '{DEFAULT_CRON}'{hint}"
        )
    for value, (name, low, high) in zip(fields, _RANGES, strict=True):
        for part in value.split(","):
            _check_part(text, name, part, low, high)
    return " ".join(fields)


def _check_part(text: str, name: str, part: str, low: int, high: int) -> None:
    problem = UserError(
        f"CRON is {text!r}: {name} is {part!r}, expected *, numbers from {low} to {high}, ranges, "
        "lists or steps"
    )
    body, slash, step = part.partition("/")
    if slash and not (step.isdigit() and int(step) > 0):
        raise problem
    if body in ("*", "?"):
        if body == "?" and name not in ("day of month", "day of week"):
            raise problem
        return
    names = {word: index + low for index, word in enumerate(_NAMES.get(name, []))}
    ends = [names.get(end.upper(), end) for end in body.split("-")]
    if len(ends) > 2 or not all(re.fullmatch(r"\d+", str(end)) for end in ends):
        raise problem
    numbers = [int(end) for end in ends]
    if not all(low <= number <= high for number in numbers) or numbers != sorted(numbers):
        raise problem


def scheduled_package(package: Path) -> Path:
    """A copy of a compiled pipeline whose data ends at the time it was scheduled for.

    Args:
        package: the compiled YAML; the copy ``<name>-scheduled.yaml`` is written beside it.
    """
    documents = list(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    for component in documents[0]["components"].values():
        task = component.get("dag", {}).get("tasks", {}).get("preflight")
        if task is not None:
            constant = {"constant": dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER}
            task["inputs"]["parameters"]["data_cutoff"] = {"runtimeValue": constant}
            break
    else:
        raise AssertionError(f"{package} has no preflight")
    output = package.with_name(f"{package.stem}-scheduled.yaml")
    output.write_text(yaml.safe_dump_all(documents, sort_keys=True), encoding="utf-8")
    return output


def create(system: str, cron: str, parameters: Mapping[str, Any], cluster: Cluster) -> str:
    """Upload the scheduled version and start a recurring run; returns its id.

    With ``data_cutoff`` among the parameters, that is kept and the schedule's time is not used. A scheduled
    run that finds no new data stops after data preparation, unless ``data_only_new=false`` is given.

    Args:
        system: name of the pipeline.
        cron: six fields, UTC.
        parameters: those that differ from the pipeline's defaults.
        cluster: where.

    Raises:
        UserError: the cron expression is wrong; the cluster cannot be reached or refuses.
    """
    expression = check_cron(cron)
    with connect(cluster) as client:
        (package,) = compile_pipelines(BUILD, (system,))
        parameters = {"data_only_new": True, **parameters}
        if not parameters.get("data_cutoff"):
            package = scheduled_package(package)
        version = upload(client, system, package, description="ends its data at the scheduled time")
        made = client.create_recurring_run(
            experiment_id(client, cluster),
            f"{system} {expression}",
            cron_expression=expression,
            max_concurrency=1,
            no_catchup=True,
            params=dict(parameters),
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            **run_settings(cluster),
        )
    print(f"pipeline:   {system}, version {version.name}")
    print(f"schedule:   {made.recurring_run_id}, cron '{expression}' (UTC), no catch-up, one run at a time")
    print(f"pause:      make pipeline-pause KFP_HOST={cluster.host} ID={made.recurring_run_id}")
    return made.recurring_run_id


def list_schedules(cluster: Cluster) -> list[Any]:
    """Every recurring run of the experiment, page after page."""
    found: list[Any] = []
    with connect(cluster) as client:
        experiment, token = experiment_id(client, cluster), ""
        while True:
            page = client.list_recurring_runs(page_token=token, page_size=100, experiment_id=experiment)
            found += page.recurring_runs or []
            token = page.next_page_token or ""
            if not token:
                return found


def change(action: str, schedule_id: str, cluster: Cluster) -> None:
    """Pause, resume or delete a recurring run.

    Args:
        action: ``pause``, ``resume`` or ``delete``.
        schedule_id: its id.
        cluster: where.

    Raises:
        UserError: no id is given, or the cluster does not know it.
    """
    if not schedule_id:
        raise UserError(f"no ID is given; `make pipeline-schedules` lists them, then ID=… for {action}")
    with connect(cluster) as client:
        call = {
            "pause": client.disable_recurring_run,
            "resume": client.enable_recurring_run,
            "delete": client.delete_recurring_run,
        }[action]
        call(recurring_run_id=schedule_id)
    print(f"{schedule_id}: {action}d")


def _print_schedules(cluster: Cluster) -> None:
    found = list_schedules(cluster)
    if not found:
        print(f"no recurring runs in experiment '{cluster.experiment}'")
    for entry in found:
        cron = entry.trigger.cron_schedule.cron if entry.trigger and entry.trigger.cron_schedule else "-"
        print(f"{entry.recurring_run_id}  {entry.status or '-':<9} '{cron}'  {entry.display_name}")


def main(argv: list[str] | None = None) -> None:
    """Parse and act."""
    parser = argparse.ArgumentParser(prog="make pipeline-schedule", description=__doc__)
    parser.add_argument("action", choices=("create", "list", "pause", "resume", "delete"))
    add_run_arguments(parser)
    parser.add_argument(
        "--cron", default=os.environ.get("CRON", ""), help=f"six fields, UTC; default '{DEFAULT_CRON}'"
    )
    parser.add_argument(
        "--id", default=os.environ.get("ID", ""), help="recurring run to pause, resume or delete"
    )
    arguments = parser.parse_args(argv)
    cluster = Cluster.from_environment()
    if arguments.action == "create":
        parameters = checked_parameters(arguments.system, arguments.params, arguments.settings)
        create(arguments.system, arguments.cron or DEFAULT_CRON, parameters, cluster)
    elif arguments.action == "list":
        _print_schedules(cluster)
    else:
        change(arguments.action, arguments.id, cluster)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
