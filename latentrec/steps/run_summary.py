"""What happened in a pipeline run, step by step, as Markdown; the exit handler's work.

KFP passes to an exit handler only that something failed. Each step has written its own status, and Kubernetes
knows why a pod was lost; this decides what the run came to, says which step failed first and why, and ends
the MLflow runs of everything that could not end its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.core.settings import RUN_ID_VARIABLE, STATUS_ROOT_VARIABLE
from latentrec.core.text import markdown_text
from latentrec.data.data_prep_config import AFTER_FILTERS
from latentrec.steps.links import mlflow_links
from latentrec.steps.notify import notify
from latentrec.steps.pods import KubernetesApi
from latentrec.steps.several_nodes import remove_left_jobs
from latentrec.steps.status import StepStatus, read_step_statuses
from latentrec.steps.verdict import Outcome, RunVerdict, decide
from latentrec.tracking.run_context import adopt_settings

logger = logging.getLogger(__name__)

_MARKS = {"succeeded": "✓", "failed": "✗", "bad_input": "✗", "interrupted": "!", "running": "…"}
_MLFLOW_STATUS = {
    Outcome.SUCCEEDED: "FINISHED",
    Outcome.NOTHING_NEW: "FINISHED",
    Outcome.FAILED: "FAILED",
    Outcome.TERMINATED: "KILLED",
}


def write_run_summary(
    path: str | Path, *, steps: Sequence[str] = (), state: str | None = None, workflow: str = ""
) -> RunVerdict:
    """Write the summary of the run that the environment names, end its MLflow runs, notify the webhook.

    Args:
        path: Markdown file to write.
        steps: names of the pipeline's steps in order.
        state: KFP's own final status; ``None``: derived from the steps.
        workflow: name of the Argo workflow; empty where there is none.

    Raises:
        UserError: the environment names no run.
    """
    from latentrec.steps.step_run import finish_parent_run

    adopt_settings()
    root, run_id = os.environ.get(STATUS_ROOT_VARIABLE), os.environ.get(RUN_ID_VARIABLE)
    if not root or not run_id:
        raise UserError(
            f"{STATUS_ROOT_VARIABLE} and {RUN_ID_VARIABLE} are not set: no run to summarize",
            code="run.not_found",
        )
    statuses = read_step_statuses(root, run_id)
    api = KubernetesApi.from_pod()
    verdict = decide(
        state,
        statuses,
        steps,
        terminated=bool(api and workflow and api.is_terminated(workflow)),
        pods=api.pods_of_run(run_id) if api else None,
    )
    links = _links(statuses)
    text = render_summary(run_id, statuses, verdict, steps=steps, links=links)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    logger.info("%s", text)
    try:
        finish_parent_run(_MLFLOW_STATUS[verdict.outcome], Path(path), steps=_mlflow_steps(statuses, verdict))
    except Exception as error:  # the summary is written; a tracking server that is away must not fail it
        logger.warning("run summary: the MLflow run could not be ended (%s)", error)
    try:
        if left := remove_left_jobs(run_id):
            logger.warning("run summary: removed abandoned TrainJobs: %s", ", ".join(left))
    except Exception as error:
        logger.info("run summary: no TrainJobs could be looked for (%s)", error)
    if reported := notify(verdict, statuses, links):
        logger.info("run summary: %s", reported)
    return verdict


def render_summary(
    run_id: str,
    statuses: Sequence[StepStatus],
    verdict: RunVerdict,
    *,
    steps: Sequence[str] = (),
    links: dict[str, str] | None = None,
) -> str:
    """The summary as Markdown: verdict first, then what went wrong and why, then a table of steps."""
    found = {status.step: status for status in statuses}
    order = [*steps, *(name for name in found if name not in steps)]
    lines = [f"# Run {run_id}: {_HEADINGS[verdict.outcome]}", ""]
    if verdict.outcome is Outcome.NOTHING_NEW:
        lines += [
            "**Nothing new**: the data is that of the newest registered version; training was left out.",
            "",
        ]
    if verdict.reason:
        lines += [f"{verdict.reason[0].upper()}{verdict.reason[1:]}.", ""]
    for problem in verdict.problems:
        lines += [f"**{problem.step}** {_STATES[problem.state]}: {markdown_text(problem.reason)}", ""]
    for warning in found.get("preflight", StepStatus("preflight")).details.get("warnings", ()):
        lines += [f"**Warning:** {markdown_text(warning)}", ""]
    evaluated = found.get("evaluate", StepStatus("evaluate")).details
    if "verdict" in evaluated:
        word = "promote" if evaluated["promote"] else "do not promote"
        lines += [f"Gate: **{word}**. {evaluated['verdict']}", ""]
    registered = found.get("register", StepStatus("register")).details
    if registered.get("registered"):
        lines += [f"Registered: `{registered['registered']}`, served as `{registered['served_as']}`", ""]
        lines += [f"Alias: {registered['verdict']}", ""]
    lines += ["| step | state | duration | GPU hours | |", "|---|---|---:|---:|---|"]
    for name in order:
        lines.append(_row(name, found.get(name)))
    total = sum(status.gpu_seconds for status in statuses) / 3600
    lines += ["", f"GPU hours: {total:.2f}"]
    lines += [f"- [{label}]({uri})" for label, uri in (links or {}).items()]
    return "\n".join(lines) + "\n"


_HEADINGS = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.NOTHING_NEW: "succeeded, nothing new",
    Outcome.FAILED: "failed",
    Outcome.TERMINATED: "terminated",
}
_STATES = {
    "failed": "failed",
    "bad_input": "met bad input",
    "interrupted": "was interrupted",
    "unfinished": "began and never ended",
}


def _mlflow_steps(statuses: Sequence[StepStatus], verdict: RunVerdict) -> dict[str, str]:
    """MLflow's status of each step: what those whose process was killed could not write themselves."""
    lost = "KILLED" if verdict.outcome is Outcome.TERMINATED else "FAILED"
    words = {"succeeded": "FINISHED", "interrupted": "KILLED", "running": lost}
    return {status.step: words.get(status.state, "FAILED") for status in statuses}


def _row(name: str, status: StepStatus | None) -> str:
    if status is None:
        return f"| {name} | – | | | from the cache, or not reached |"
    seconds = f"{status.ended - status.started:,.1f} s" if status.ended else ""
    state = f"{_MARKS.get(status.state, '?')} {status.state.replace('_', ' ')}"
    return f"| {name} | {state} | {seconds} | {status.gpu_seconds / 3600:.3f} | {_note(status.details)} |"


def _note(details: dict[str, Any]) -> str:
    counts = details.get("counts") or {}
    whole = {key: value for key, value in counts.items() if isinstance(value, int)}
    flat = [f"{key} {value:,}" for key, value in whole.items() if key not in AFTER_FILTERS][:4]
    if details.get("restarts"):
        flat.append(f"restarted {len(details['restarts'])}×: {'; '.join(details['restarts'])}")
    if details.get("earlier_pods"):
        flat.append(f"{details['earlier_pods']} earlier pod(s) lost")
    return ", ".join(flat).replace("|", "/")


def _links(statuses: Sequence[StepStatus]) -> dict[str, str]:
    parents = [s.details["mlflow_parent_run_id"] for s in statuses if s.details.get("mlflow_parent_run_id")]
    return mlflow_links(parents[0]) if parents else {}
