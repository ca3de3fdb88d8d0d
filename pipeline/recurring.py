"""Recurring runs by name: made once, replaced and taken away without ending a run in progress.

With a recurring run KFP deletes the workflows of its runs, and a run in progress then stays RUNNING for ever.
So an old one is paused, and deleted once its runs have ended: at once, or by whichever of these commands
comes next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from latentrec.core import UserError
from pipeline.cron import next_time
from pipeline.run_states import is_final

MADE_BY = "Made by make pipeline-schedule"
"""How descriptions of ours begin: no other recurring run is ever replaced or deleted unasked."""

PAGE = 100


@dataclass(frozen=True)
class ScheduleState:
    """What a recurring run does, as people ask for it.

    Attributes:
        id: of the recurring run.
        name: its name.
        enabled: whether it starts runs.
        cron: six fields; empty for one with an interval.
        version: name of the pipeline's version; ``latest`` where it follows the newest.
        parameters: those given to its runs.
        next_run: when it starts one; ``None`` where it is paused.
        last_run: its newest run, as the API returns it.
        in_progress: ids of its runs that have not ended.
    """

    id: str
    name: str
    enabled: bool
    cron: str
    version: str
    parameters: Mapping[str, Any]
    next_run: datetime | None
    last_run: Any
    in_progress: tuple[str, ...]


class Schedules:
    """The recurring runs of one experiment.

    Args:
        client: of :func:`pipeline.cluster.connect`.
        experiment: id of the experiment.
    """

    def __init__(self, client: Any, experiment: str) -> None:
        self.client, self.experiment = client, experiment

    def entries(self) -> list[Any]:
        """Every recurring run, newest first."""
        found = self._pages(lambda **page: self.client.list_recurring_runs(**page), "recurring_runs")
        return sorted(found, key=lambda entry: _made(entry), reverse=True)

    def find(self, name_or_id: str) -> Any:
        """The recurring run of an id, or the newest of a name.

        Raises:
            UserError: there is none.
        """
        entries = self.entries()
        for entry in entries:
            if name_or_id in (entry.recurring_run_id, entry.display_name):
                return entry
        known = ", ".join(sorted({entry.display_name for entry in entries})) or "none"
        raise UserError(
            f"ID is {name_or_id!r}: no such schedule (not found); there are: {known}",
            code="schedule.not_found",
        )

    def runs_of(self, entry: Any) -> list[Any]:
        """The runs that a recurring run has started, newest first."""
        found: list[Any] = []
        token = ""
        while True:
            page = self.client.list_runs(
                page_token=token,
                page_size=PAGE,
                sort_by="created_at desc",
                experiment_id=self.experiment,
            )
            runs = page.runs or []
            found += [run for run in runs if run.recurring_run_id == entry.recurring_run_id]
            token = page.next_page_token or ""
            if not token or (runs and _made(runs[-1]) < _made(entry)):
                return found

    def in_progress(self, entry: Any) -> tuple[str, ...]:
        """Ids of a recurring run's runs that have not ended."""
        return tuple(run.run_id for run in self.runs_of(entry) if not is_final(run))

    def make(self, name: str, same: Mapping[str, Any], create: Callable[[], Any]) -> tuple[Any, list[Any]]:
        """Have one enabled recurring run of a name: the one that stands if it is the same, else a new one.

        Args:
            name: its name.
            same: what it is recognized by: ``cron``, ``reference`` (of the version) and ``parameters``.
            create: makes the new one.

        Returns:
            The recurring run, and those of the name that are paused until their runs have ended.
        """
        old = [entry for entry in self.entries() if entry.display_name == name]
        ours = [entry for entry in old if (entry.description or "").startswith(MADE_BY)]
        if len(ours) != len(old):
            raise UserError(
                f"a recurring run '{name}' exists that was not made by this command; take another NAME, or "
                "delete it in KFP's page",
                code="schedule.name_taken",
            )
        standing = next((entry for entry in old if _enabled(entry) and _contents(entry) == dict(same)), None)
        paused = [entry for entry in old if entry is not standing and _enabled(entry)]
        for entry in paused:
            self.client.disable_recurring_run(recurring_run_id=entry.recurring_run_id)
        try:
            made = standing or create()
        except BaseException:
            for entry in paused:  # the old one goes on where the new one was refused
                self.client.enable_recurring_run(recurring_run_id=entry.recurring_run_id)
            raise
        return made, [entry for entry in old if entry is not standing and not self.retire(entry)]

    def retire(self, entry: Any) -> bool:
        """Delete a paused recurring run if none of its runs is in progress; whether it was."""
        if self.in_progress(entry):
            return False
        self.client.delete_recurring_run(recurring_run_id=entry.recurring_run_id)
        return True

    def sweep(self) -> list[str]:
        """Delete those that were replaced during a run of theirs that has ended since; their ids."""
        entries = self.entries()
        going = {entry.display_name for entry in entries if _enabled(entry)}
        gone = []
        for entry in entries:
            ours = (entry.description or "").startswith(MADE_BY)
            replaced = ours and not _enabled(entry) and entry.display_name in going
            if replaced and self.retire(entry):
                gone.append(entry.recurring_run_id)
        return gone

    def states(self, now: datetime | None = None) -> list[ScheduleState]:
        """What every recurring run does, by name."""
        names: dict[str, str] = {}
        found = []
        for entry in self.entries():
            runs = self.runs_of(entry)
            contents = _contents(entry)
            cron, enabled = contents["cron"], _enabled(entry)
            found.append(
                ScheduleState(
                    id=entry.recurring_run_id,
                    name=entry.display_name,
                    enabled=enabled,
                    cron=cron,
                    version=self._version_name(contents["reference"], names),
                    parameters=contents["parameters"],
                    next_run=next_time(cron, now or datetime.now(UTC)) if enabled and cron else None,
                    last_run=runs[0] if runs else None,
                    in_progress=tuple(run.run_id for run in runs if not is_final(run)),
                )
            )
        return sorted(found, key=lambda state: state.name)

    def _version_name(self, reference: tuple[str, str], names: dict[str, str]) -> str:
        import kfp_server_api

        pipeline, version = reference
        if not version:
            return "latest"
        if version not in names:
            try:
                names[version] = self.client.get_pipeline_version(pipeline, version).display_name
            except kfp_server_api.ApiException:  # a version that was deleted
                names[version] = version
        return names[version]

    def _pages(self, ask: Callable[..., Any], field: str) -> list[Any]:
        found: list[Any] = []
        token = ""
        while True:
            page = ask(page_token=token, page_size=PAGE, experiment_id=self.experiment)
            found += getattr(page, field) or []
            token = page.next_page_token or ""
            if not token:
                return found


def contents(cron: str, pipeline: str, version: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What distinguishes one recurring run from another of its name.

    Args:
        cron: six fields.
        pipeline: its id.
        version: id of the version; empty for the newest.
        parameters: those of its runs.
    """
    plain = json.loads(json.dumps(dict(parameters)))
    return {"cron": cron, "reference": (pipeline, version), "parameters": plain}


def _contents(entry: Any) -> dict[str, Any]:
    cron = entry.trigger.cron_schedule.cron if entry.trigger and entry.trigger.cron_schedule else ""
    reference = entry.pipeline_version_reference
    given = (entry.runtime_config.parameters if entry.runtime_config else None) or {}
    pipeline = (reference.pipeline_id if reference else None) or ""
    version = (reference.pipeline_version_id if reference else None) or ""
    return contents(cron or "", pipeline, version, given)


def _enabled(entry: Any) -> bool:
    return (entry.status or "") == "ENABLED"


def _made(entry: Any) -> datetime:
    return entry.created_at or datetime.min.replace(tzinfo=UTC)
