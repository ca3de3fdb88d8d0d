"""The checks of ``make smoke-cluster``, each on runs of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from latentrec.core import UserError
from latentrec.steps.acceptance import tracked_run, try_registered_model
from pipeline import schedule
from pipeline.cluster import Cluster, Unreachable, connect, experiment_id
from pipeline.kubectl import Kubectl, Pod
from pipeline.run_states import TaskState, is_final, task_states
from pipeline.smoke_report import Report
from pipeline.submit import submit

SETTLE_S = 60.0
"""How long the states of a run's tasks may lag behind the run's own."""

LOST_S = 300.0
"""How long the API may be away, each time."""

TRAIN_S = 30.0
"""How long a training pod may work before it is deleted."""

GIVEN_UP = "exceeded its deadline"
"""Argo's message on a pod of a terminated run that it did not wait for."""

SCHEDULE = "latentr3-smoke"
EVERY_MINUTE = "0 * * * * *"
LONG = {"sft_num_train_epochs": 200, "seed": 4243, "registry_model_name": "latentr3-smoke-lost"}

Answer = TypeVar("Answer")
_NONE = TaskState("", False, 0)


@dataclass
class Smoke:
    """What the checks share.

    Attributes:
        cluster: the installation.
        parameters: of a tiny run.
        report: where the results go.
        kubectl: ``None`` where it cannot be used.
        why_not: why not.
        timeout_s: seconds for each run.
        every_s: seconds between two questions.
    """

    cluster: Cluster
    parameters: Mapping[str, Any]
    report: Report
    kubectl: Kubectl | None = None
    why_not: str = ""
    timeout_s: float = 3600.0
    every_s: float = 15.0

    def start(self, purpose: str, **changed: Any) -> str:
        """Start a tiny run; returns its id."""
        run_id = self.retried(lambda: submit("latentr3", {**self.parameters, **changed}, self.cluster))
        self.report.runs[purpose] = run_id
        return run_id

    def get(self, run_id: str) -> Any:
        """The run as the API returns it."""
        with connect(self.cluster) as client:
            return client.get_run(run_id)

    def end_of(self, run_id: str) -> tuple[str, dict[str, TaskState]]:
        """Wait for a run's end; its state, and that of each of its tasks once they have settled.

        Raises:
            UserError: it has not ended in time.
        """
        shown = ""

        def ended() -> Any:
            nonlocal shown
            run = self.get(run_id)
            if (run.state or "") != shown:
                shown = run.state or ""
                print(f"  {time.strftime('%H:%M:%S')} {run_id}: {shown}", flush=True)
            return run if is_final(run) else None

        run = self.until(ended, self.timeout_s)
        if run is None:
            link = self.cluster.run_link(run_id)
            raise UserError(
                f"run {run_id} is {shown} after {self.timeout_s:.0f} s; see {link}",
                code="cluster.run_timeout",
            )

        def settled() -> Any:
            states = task_states(self.get(run_id))
            busy = [s for s in states.values() if s.state in ("PENDING", "RUNNING")]
            return states if states and not busy else None

        return run.state, self.until(settled, SETTLE_S) or task_states(self.get(run_id))

    def ran(self, run_id: str, tasks: Mapping[str, TaskState], step: str) -> bool:
        """Whether a step ran to its end, and not from the cache: the API says so, or the step's pod.

        Seen on KFP 2.17: the tasks of a run that has succeeded stay as they were a minute before its end.
        """
        found = tasks.get(step.replace("_", "-"), _NONE)
        if found.cached:
            return False
        return found.state == "SUCCEEDED" or any(
            pod.step == step and pod.phase == "Succeeded" for pod in self.pods(run_id)
        )

    def cached(self, run_id: str, tasks: Mapping[str, TaskState], step: str) -> bool:
        """Whether a step came from the cache: the API says so, or the run has pods and the step has none."""
        if tasks.get(step.replace("_", "-"), _NONE).cached:
            return True
        steps = {pod.step for pod in self.pods(run_id)}
        return bool(steps) and step not in steps

    def pods(self, run_id: str) -> list[Pod]:
        """The pods of a run's steps; none where ``kubectl`` cannot be used."""
        return self.kubectl.pods(run_id) if self.kubectl else []

    def until(self, found: Callable[[], Any], seconds: float) -> Any:
        """Ask until there is an answer that counts, or the time is over (then ``None``).

        Raises:
            UserError: the API has not answered for ``LOST_S``.
        """
        end = time.monotonic() + seconds
        while True:
            answer = self.retried(found)
            if answer or time.monotonic() > end:
                return answer or None
            time.sleep(self.every_s)

    def retried(self, ask: Callable[[], Answer]) -> Answer:
        """Ask once; where there is no answer, again until there is one.

        Raises:
            UserError: the API has not answered for ``LOST_S``, or it refuses.
        """
        end = time.monotonic() + LOST_S
        while True:
            try:
                return ask()
            except Unreachable as error:
                if time.monotonic() > end:
                    raise
                print(f"  {time.strftime('%H:%M:%S')} {error}; asking again", flush=True)
                time.sleep(self.every_s)


def two_runs(smoke: Smoke) -> bool:
    """A run to the end, and the same again from the cache; whether both succeeded."""
    run_id = smoke.start("first")
    state, tasks = smoke.end_of(run_id)
    check = smoke.report.check
    failed = ", ".join(name for name, task in tasks.items() if task.state == "FAILED")
    detail = "" if state == "SUCCEEDED" else f"it is {state}; failed tasks: {failed or 'none reported'}"
    if not check("the run succeeded", state == "SUCCEEDED", detail):
        return False
    check("the run summary ran", smoke.ran(run_id, tasks, "run_summary"))
    run_id = smoke.start("second")
    state, tasks = smoke.end_of(run_id)
    good = check("the second run succeeded", state == "SUCCEEDED", "" if state == "SUCCEEDED" else state)
    check("its data preparation came from the cache", smoke.cached(run_id, tasks, "data_prep"))
    check("its preflight did not", smoke.ran(run_id, tasks, "preflight"))
    check("its registration did not", smoke.ran(run_id, tasks, "register"))
    return good


def registered_model(smoke: Smoke) -> None:
    """The registered model is loaded from the registry and recommends something."""
    what = "the registered model loads and recommends"
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return smoke.report.skip(what, "MLFLOW_TRACKING_URI is not set")
    name = str(smoke.parameters["registry_model_name"])
    try:
        smoke.report.check(what, True, try_registered_model(name))
    except Exception as error:  # whatever keeps a model from loading is what this check is for
        smoke.report.check(what, False, f"{type(error).__name__}: {str(error)[:200]}")
    return None


def schedule_without_new_data(smoke: Smoke) -> None:
    """A recurring run without catch-up, whose first run finds nothing new and says so."""
    check = smoke.report.check

    def make() -> str:
        return schedule.create("latentr3", EVERY_MINUTE, dict(smoke.parameters), smoke.cluster, name=SCHEDULE)

    made = smoke.retried(make)
    try:
        check("a schedule without catch-up was made", smoke.retried(lambda: _no_catchup(smoke, made)))
        check("the same schedule made twice is one", smoke.retried(make) == made)
        run_id = smoke.until(lambda: _first_run_of(smoke, made), 300)
        _scheduled_run(smoke, made, run_id)
    finally:
        # Only now: with a recurring run KFP deletes the workflows of its runs, and such a run stays RUNNING.
        smoke.retried(lambda: schedule.change("delete", made, smoke.cluster))


def _scheduled_run(smoke: Smoke, recurring: str, run_id: str | None) -> None:
    what = "the scheduled run found nothing new and ended well"
    if run_id is None:
        smoke.report.check(what, False, "no run of the schedule was started within 5 minutes")
        return
    smoke.retried(lambda: schedule.change("pause", recurring, smoke.cluster))
    smoke.report.runs["scheduled"] = run_id
    state, tasks = smoke.end_of(run_id)
    trained = sorted(name for name in ("evaluate", "register") if smoke.ran(run_id, tasks, name))
    detail = f"it is {state}" if state != "SUCCEEDED" else f"it ran {', '.join(trained)}" if trained else ""
    smoke.report.check(what, state == "SUCCEEDED" and not trained, detail)
    _tracked(smoke, run_id, "MLflow says that it succeeded", parent="FINISHED")


def accelerators(smoke: Smoke) -> None:
    """A pod of a run with one accelerator asks Kubernetes for it."""
    what = "a training pod asks for its accelerator"
    if smoke.kubectl is None:
        smoke.report.skip(what, smoke.why_not)
        return
    kubectl = smoke.kubectl
    if not kubectl.accelerators():
        smoke.report.skip(what, "no node has nvidia.com/gpu")
        return
    changed = {"gpu_count": "1", "seed": 4242, "registry_model_name": "latentr3-smoke-gpu"}
    if not smoke.parameters.get("gpu_node_selector"):
        changed["gpu_node_selector"] = {"kubernetes.io/os": "linux"}
    run_id = smoke.start("accelerator", **changed)

    def pod() -> Pod | None:
        found = [pod for pod in kubectl.pods(run_id) if pod.step in ("backbone", "sft")]
        return found[0] if found else None

    found = smoke.until(lambda: pod() or is_final(smoke.get(run_id)), smoke.timeout_s)
    limit = found.gpus if isinstance(found, Pod) else None
    smoke.report.check(what, limit == "1", f"limit is {limit}" if limit != "1" else "")
    _terminate(smoke, run_id)
    smoke.end_of(run_id)


def lost_pod_and_termination(smoke: Smoke) -> None:
    """A training pod that is deleted comes back; a run that is terminated says so, in KFP and in MLflow."""
    run_id = smoke.start("terminated", **LONG)
    what = "a deleted training pod came back"
    if smoke.kubectl is None:
        smoke.report.skip(what, smoke.why_not)
        smoke.until(lambda: "sft" in task_states(smoke.get(run_id)), smoke.timeout_s)
    else:
        _delete_a_pod(smoke, smoke.kubectl, run_id, what)
    _terminate(smoke, run_id)
    state, tasks = smoke.end_of(run_id)
    smoke.report.check("the terminated run ended", state in ("FAILED", "CANCELED"), state)
    summary = "the terminated run's summary ran"
    what = "MLflow says that it was terminated, and nothing of it still runs"
    if smoke.ran(run_id, tasks, "run_summary"):
        smoke.report.check(summary, True)
        _tracked(smoke, run_id, what, "KILLED")
        return
    if "run-summary" in tasks and tasks["run-summary"].state == "FAILED":
        smoke.report.check(summary, False, "it ran and failed")
        return
    # Argo gives an exit handler up whose driver's pod has not started when it next looks at a terminated run.
    if smoke.kubectl is None:
        why = f"whether Argo gave the exit handler up is not known: {smoke.why_not}"
    elif any(GIVEN_UP in message for message in smoke.kubectl.workflow_messages(run_id)):
        why = f"Argo ended the exit handler before its pod started ({GIVEN_UP!r})"
    else:
        smoke.report.check(summary, False, "it did not run, and Argo does not say that it gave it up")
        return
    smoke.report.skip(summary, why)
    smoke.report.skip(what, "the next run's preflight ends the MLflow runs")


def _delete_a_pod(smoke: Smoke, kubectl: Kubectl, run_id: str, what: str) -> None:
    def running() -> Pod | None:
        found = [pod for pod in kubectl.pods(run_id) if pod.step == "sft" and pod.running]
        return found[-1] if found else None

    first = smoke.until(running, smoke.timeout_s)
    if first is None:
        smoke.report.check(what, False, "no training pod was seen running")
        return
    time.sleep(min(TRAIN_S, smoke.timeout_s))
    if not kubectl.delete_pod(first.name):
        smoke.report.check(what, False, f"{first.name} could not be deleted")
        return

    def back() -> Pod | None:
        pod = running()
        return pod if pod and (pod.name, pod.uid) != (first.name, first.uid) else None

    second = smoke.until(back, smoke.timeout_s)
    smoke.report.check(what, second is not None, second.name if second else "no second pod was started")


def _terminate(smoke: Smoke, run_id: str) -> None:
    def terminate() -> None:
        with connect(smoke.cluster) as client:
            client.terminate_run(run_id)

    smoke.retried(terminate)


def _tracked(smoke: Smoke, run_id: str, what: str, parent: str) -> None:
    """Whether MLflow's run of a pipeline run, and everything below it, has ended as it should."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        smoke.report.skip(what, "MLFLOW_TRACKING_URI is not set")
        return
    found = tracked_run(run_id)
    detail = (
        f"pipeline {', '.join(found.parents) or 'has no run'}; running: {', '.join(found.running) or 'none'}"
    )
    smoke.report.check(what, found.parents == (parent,) and not found.running, detail)


def _first_run_of(smoke: Smoke, recurring: str) -> str | None:
    with connect(smoke.cluster) as client:
        page = client.list_runs(
            page_size=50, sort_by="created_at desc", experiment_id=experiment_id(client, smoke.cluster)
        )
    runs = [run for run in page.runs or [] if run.recurring_run_id == recurring]
    return runs[-1].run_id if runs else None


def _no_catchup(smoke: Smoke, recurring: str) -> bool:
    """Asked of the recurring run itself: the list leaves the field out on some backends."""
    with connect(smoke.cluster) as client:
        return bool(client.get_recurring_run(recurring).no_catchup)
