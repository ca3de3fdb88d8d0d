"""The run tree: one parent per pipeline run, one nested run per step, each found again by its tags."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from latentrec.tracking.embedded_store import open_client
from latentrec.tracking.run_context import RunContext, artifact_location

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

ROLE_TAG = "latentrec.role"
STEP_TAG = "latentrec.step"
ATTEMPT_TAG = "latentrec.attempt"
SUMMARY_STEP = "run_summary"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "One run a pipeline run, its steps below it. Compare the parents for results, "
    "and the steps of one parent for training curves.",
}
"""Open the experiment in MLflow's view of model training, not in the one of LLM applications."""


class RunTree:
    """Finds or makes the runs of one pipeline run. Every method talks to the tracking server."""

    def __init__(self, context: RunContext):
        assert context.tracking_uri is not None
        for noisy in ("alembic", "mlflow.store.db"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.context = context
        self.client: MlflowClient = open_client(context.tracking_uri)

    def experiment_id(self) -> str:
        """The experiment's id; made on first use (two that make it at once agree on one)."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(self.context.experiment)
        if found is None:
            try:
                location = artifact_location(self.context.tracking_uri or "")
                return self.client.create_experiment(
                    self.context.experiment, artifact_location=location, tags=EXPERIMENT_TAGS
                )
            except MlflowException:
                found = self.client.get_experiment_by_name(self.context.experiment)
                if found is None:
                    raise
        for name, value in EXPERIMENT_TAGS.items():
            if name not in found.tags:  # made by hand, or by the platform; what a user has set stays
                self.client.set_experiment_tag(found.experiment_id, name, value)
        return found.experiment_id

    def parent(self) -> str | None:
        """Id of the pipeline run's own MLflow run; ``None`` for a command that belongs to no pipeline run."""
        context = self.context
        if context.injected_run:
            run = self._injected_root(context.injected_run)
            if ROLE_TAG not in run.data.tags:
                self._tag(run.info.run_id, {**context.tags(), ROLE_TAG: "pipeline"})
            return run.info.run_id
        if not context.run_id:
            return None
        found = self._oldest({"pipeline.run_id": context.run_id, ROLE_TAG: "pipeline"})
        if found is not None:
            return found.info.run_id
        name = f"{context.pipeline or 'pipeline'} {_short(context.run_id)}"
        made = self._create(name, {**context.tags(), ROLE_TAG: "pipeline"})
        # Two steps that start at once may both find nothing: the oldest stands, the other is withdrawn.
        oldest = self._oldest({"pipeline.run_id": context.run_id, ROLE_TAG: "pipeline"})
        if oldest is not None and oldest.info.run_id != made:
            self.client.delete_run(made)
            return oldest.info.run_id
        return made

    def step(self, step: str) -> str:
        """Open the step's nested run: a new one, or on a retry the one that the first attempt has opened.

        Where the platform has opened a run for the step, that is it.
        """
        parent = self.parent()
        tags = {**self.context.tags(), ROLE_TAG: "step", STEP_TAG: step}
        if parent is None:
            return self._create(step, {**tags, ATTEMPT_TAG: "1"})
        injected = self.context.injected_run
        if injected and injected != parent:
            known = self.client.get_run(injected).data.tags.get(ATTEMPT_TAG, "0")
            self.client.update_run(injected, status="RUNNING")
            self._tag(injected, {**tags, ATTEMPT_TAG: str(int(known) + 1)})
            return injected
        found = self._oldest({"mlflow.parentRunId": parent, STEP_TAG: step}, experiment_of=parent)
        if found is None:
            tags |= {"mlflow.parentRunId": parent, ATTEMPT_TAG: "1"}
            return self._create(step, tags, experiment_of=parent)
        run_id = found.info.run_id
        attempt = int(found.data.tags.get(ATTEMPT_TAG, "1")) + 1
        self.client.update_run(run_id, status="RUNNING")
        self._tag(run_id, {**tags, ATTEMPT_TAG: str(attempt)})
        return run_id

    def end(self, parent: str, status: str, steps: Mapping[str, str]) -> list[str]:
        """End a pipeline run's MLflow run, and every run below it that is still running.

        Args:
            parent: its id.
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
            steps: the same for the steps that are known; others get the parent's.

        Returns:
            Names of the runs below it that were still running.
        """
        own = self.client.get_run(parent).info
        experiment, ends = own.experiment_id, [int(time.time() * 1000), own.start_time]
        below = f"tags.`mlflow.parentRunId` = '{_quoted(parent)}'"
        ended = []
        for run in self.client.search_runs([experiment], below, max_results=1000):
            step = run.data.tags.get(STEP_TAG, "")
            if run.info.status == "RUNNING" and step != SUMMARY_STEP:
                end = max(ends[0], run.info.start_time)
                self.client.set_terminated(run.info.run_id, status=steps.get(step, status), end_time=end)
                ended.append(step or run.info.run_name)
            ends.append(run.info.end_time or run.info.start_time)
        # The machine's clock may have been set back since: nothing ends before it began.
        self.client.set_terminated(parent, status=status, end_time=max(ends))
        return ended

    def running_parents(self) -> list[Run]:
        """Runs of pipelines that MLflow believes to be running, in this context's experiment."""
        wanted = f"attributes.status = 'RUNNING' and tags.`{ROLE_TAG}` = 'pipeline'"
        return list(self.client.search_runs([self.experiment_id()], wanted, max_results=1000))

    def running_steps_of_ended_runs(self) -> list[tuple[Run, Run]]:
        """Runs of steps that MLflow believes to be running although the pipeline's run has ended; both runs.

        A step that goes on after its run's summary (its pod was slow to stop, or a killed one's last
        metrics came late) is opened again and stays running.
        """
        from mlflow.exceptions import MlflowException

        wanted = f"attributes.status = 'RUNNING' and tags.`{ROLE_TAG}` = 'step'"
        parents: dict[str, Run | None] = {}
        found = []
        for run in self.client.search_runs([self.experiment_id()], wanted, max_results=1000):
            above = run.data.tags.get("mlflow.parentRunId")
            if above and above not in parents:
                try:
                    parents[above] = self._injected_root(above)
                except MlflowException:  # deleted for good
                    parents[above] = None
            parent = parents.get(above) if above else None
            if parent is not None and parent.info.status != "RUNNING":
                found.append((run, parent))
        return found

    def _injected_root(self, run_id: str) -> Run:
        """The outermost run above an injected one; the injected one itself where nothing is above it."""
        run, seen = self.client.get_run(run_id), set()
        while above := run.data.tags.get("mlflow.parentRunId"):
            if above in seen:
                break
            seen.add(above)
            run = self.client.get_run(above)
        return run

    def _experiment(self, experiment_of: str | None) -> str:
        if experiment_of and self.context.injected_run:
            return self.client.get_run(experiment_of).info.experiment_id
        return self.experiment_id()

    def _create(self, name: str, tags: dict[str, str], experiment_of: str | None = None) -> str:
        run = self.client.create_run(
            self._experiment(experiment_of), start_time=int(time.time() * 1000), tags=tags, run_name=name
        )
        return run.info.run_id

    def _oldest(self, tags: dict[str, str], experiment_of: str | None = None) -> Run | None:
        wanted = " and ".join(f"tags.`{name}` = '{_quoted(value)}'" for name, value in tags.items())
        found = self.client.search_runs([self._experiment(experiment_of)], filter_string=wanted)
        return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)

    def _tag(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _short(run_id: str) -> str:
    """The end of a run's id (a UUID, ``latentr3-20261127-182318-f45456``): charts have little room."""
    last = run_id.rpartition("-")[2]
    return last[-6:] or run_id


def _quoted(value: str) -> str:
    return value.replace("'", "")
