"""``make pipeline-schedule``: recurring runs by name, and pausing, resuming, listing and deleting them.

A recurring run never catches up on times that it missed, never overlaps itself, and trains on the data up
to the time it was scheduled for (``data_cutoff=scheduled``; preflight is given that time by KFP). Made again
under the same name it is replaced, and a run in progress goes on (``pipeline.recurring``).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.steps.data_cutoff import SCHEDULED
from latentrec.steps.status import exit_code_on_error
from pipeline.cluster import Cluster, connect, experiment_id, run_body
from pipeline.compile import compile_pipelines
from pipeline.cron import DEFAULT_CRON, check_cron
from pipeline.dags import BATCH_SCORING
from pipeline.pipeline_versions import find_version, upload
from pipeline.recurring import MADE_BY, Schedules, ScheduleState, contents
from pipeline.submit import BUILD, add_run_arguments, checked_parameters

NEWEST = "latest"
"""As ``VERSION``: every run takes the version that is the newest when it starts."""
WAIT_S = 30.0


def create(
    system: str,
    cron: str,
    parameters: Mapping[str, Any],
    cluster: Cluster,
    *,
    name: str = "",
    version: str = "",
) -> str:
    """Have one recurring run of a name; returns its id. The same one made twice is one.

    With ``data_cutoff`` among the parameters, that is kept and the schedule's time is not used. A scheduled
    run that finds no new data stops after data preparation, unless ``data_only_new=false`` is given.

    Args:
        system: name of the pipeline.
        cron: six fields, UTC.
        parameters: those that differ from the pipeline's defaults.
        cluster: where.
        name: of the recurring run; empty: the pipeline's.
        version: ``latest`` to follow the newest, the name of one that is there, or empty for this checkout's.

    Raises:
        UserError: the cron expression is wrong; the cluster cannot be reached or refuses.
    """
    import kfp_server_api as api

    expression, name = check_cron(cron), name or system
    given = dict(parameters)
    if system != BATCH_SCORING:
        given = {"data_only_new": True, "data_cutoff": SCHEDULED, **parameters}
    with connect(cluster) as client:
        if version in ("", NEWEST):
            (package,) = compile_pipelines(BUILD, (system,))
            found = upload(client, system, package, namespace=cluster.namespace)
        else:
            found = find_version(client, system, version, namespace=cluster.namespace)
        experiment = experiment_id(client, cluster)
        pinned = "" if version == NEWEST else found.version_id

        def make() -> Any:
            return client.recurring_runs.recurring_run_service_create_recurring_run(
                recurring_run=api.V2beta1RecurringRun(
                    experiment_id=experiment,
                    display_name=name,
                    description=f"{MADE_BY}: {system}, version {NEWEST if not pinned else found.name}",
                    trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=expression)),
                    mode=api.RecurringRunMode.ENABLE,
                    no_catchup=True,
                    max_concurrency="1",
                    **run_body(cluster, given, found.pipeline_id, pinned),
                )
            )

        schedules = Schedules(client, experiment)
        same = contents(expression, found.pipeline_id, pinned, given)
        made, waiting = schedules.make(name, same, make)
        in_progress = [run for entry in waiting for run in schedules.in_progress(entry)]
    shown = f"{NEWEST}, now {found.name}" if version == NEWEST else found.name
    print(f"pipeline:   {system}, version {shown}")
    print(f"schedule:   {name}, cron '{expression}' (UTC), no catch-up, one run at a time")
    print(f"id:         {made.recurring_run_id}")
    for run_id in in_progress:
        print(
            f"goes on:    {cluster.run_link(run_id)} of the one that is replaced, which is paused until then"
        )
    print(f"pause:      make pipeline-pause KFP_HOST={cluster.host} ID={name}")
    return made.recurring_run_id


def list_schedules(cluster: Cluster) -> list[ScheduleState]:
    """What every recurring run of the experiment does; replaced ones whose runs have ended are deleted."""
    with connect(cluster) as client:
        schedules = Schedules(client, experiment_id(client, cluster))
        schedules.sweep()
        return schedules.states()


def change(action: str, name_or_id: str, cluster: Cluster, *, every_s: float = WAIT_S) -> None:
    """Pause, resume or delete a recurring run; deleting waits until its runs have ended.

    Args:
        action: ``pause``, ``resume`` or ``delete``.
        name_or_id: its name or id.
        cluster: where.
        every_s: seconds between two polls.

    Raises:
        UserError: none is given, or the cluster does not know it.
    """
    if not name_or_id:
        raise UserError(
            f"no ID is given; `make pipeline-schedules` lists them, then ID=… for {action}",
            code="config.missing_value",
        )
    with connect(cluster) as client:
        schedules = Schedules(client, experiment_id(client, cluster))
        entry = schedules.find(name_or_id)
        key = entry.recurring_run_id
        if action == "resume":
            client.enable_recurring_run(recurring_run_id=key)
        else:
            client.disable_recurring_run(recurring_run_id=key)
        if action == "delete":
            _delete_when_idle(schedules, entry, cluster, every_s)
    print(f"{entry.display_name} ({key}): {action}d")


def _delete_when_idle(schedules: Schedules, entry: Any, cluster: Cluster, every_s: float) -> None:
    reported: tuple[str, ...] = ()
    while not schedules.retire(entry):
        running = schedules.in_progress(entry)
        if running != reported:
            reported = running
            for run_id in running:
                print(f"waits for   {cluster.run_link(run_id)}", flush=True)
            print(
                "paused; it is deleted when they have ended, because KFP would take their workflows away "
                "with it (interrupt to leave it paused)",
                flush=True,
            )
        time.sleep(every_s)


def describe(state: ScheduleState, cluster: Cluster) -> list[str]:
    """A recurring run in a few lines: what, when, with which parameters, and how it went."""
    lines = [f"{state.name}  {'enabled' if state.enabled else 'PAUSED'}  '{state.cron or '-'}'  {state.id}"]
    lines.append(f"    version     {state.version}")
    lines.append(f"    next run    {_when(state.next_run) if state.next_run else 'none'}")
    last = state.last_run
    shown = f"{_when(last.created_at)} {last.state} {cluster.run_link(last.run_id)}" if last else "none yet"
    lines.append(f"    last run    {shown}")
    for name, value in sorted(state.parameters.items()):
        text = value if isinstance(value, str) else json.dumps(value)
        lines.append(f"    {name}={redact(text)}")
    return lines


def _when(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC") if moment else "-"


def main(argv: list[str] | None = None) -> None:
    """Parse and act."""
    variable = os.environ.get
    parser = argparse.ArgumentParser(prog="make pipeline-schedule", description=__doc__)
    parser.add_argument("action", choices=("create", "list", "pause", "resume", "delete"))
    add_run_arguments(parser)
    parser.add_argument(
        "--cron", default=variable("CRON", ""), help=f"CRON: six fields, UTC; default '{DEFAULT_CRON}'"
    )
    parser.add_argument("--name", default=variable("NAME", ""), help="NAME: of the schedule; default: SYSTEM")
    parser.add_argument(
        "--version", default=variable("VERSION", ""), help="VERSION: 'latest', or one that is there"
    )
    parser.add_argument("--id", default=variable("ID", ""), help="ID: recurring run, by its name or id")
    arguments = parser.parse_args(argv)
    cluster = Cluster.from_environment()
    if arguments.action == "create":
        create(
            arguments.system,
            arguments.cron or DEFAULT_CRON,
            checked_parameters(arguments.system, arguments.params, arguments.settings),
            cluster,
            name=arguments.name,
            version=arguments.version,
        )
    elif arguments.action == "list":
        states = list_schedules(cluster)
        if not states:
            print(f"no recurring runs in experiment '{cluster.experiment}'")
        for state in states:
            print("\n".join(describe(state, cluster)))
    else:
        change(arguments.action, arguments.id, cluster)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
