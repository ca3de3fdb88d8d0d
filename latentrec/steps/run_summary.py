"""What happened in a pipeline run, step by step, as Markdown; the exit handler's work.

KFP tells an exit handler only that something failed. Each step has written its own status
(:mod:`latentrec.steps.status`); this reads them, says which step failed and why, and ends the MLflow run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.core.settings import RUN_ID_VARIABLE, STATUS_ROOT_VARIABLE
from latentrec.steps.links import mlflow_links
from latentrec.steps.status import StepStatus, read_step_statuses
from latentrec.tracking.run_context import adopt_settings

_MARKS = {"succeeded": "✓", "failed": "✗", "bad_input": "✗", "interrupted": "!", "running": "…"}


def write_run_summary(path: str | Path, *, steps: Sequence[str] = (), succeeded: bool | None = None) -> str:
    """Write the summary of the run that the environment names, and end its MLflow run.

    Args:
        path: Markdown file to write.
        steps: names of the pipeline's steps in order.
        succeeded: KFP's own verdict; ``None``: judged by the steps.

    Raises:
        UserError: the environment names no run.
    """
    from latentrec.steps.step_run import finish_parent_run

    adopt_settings()
    root, run_id = os.environ.get(STATUS_ROOT_VARIABLE), os.environ.get(RUN_ID_VARIABLE)
    if not root or not run_id:
        raise UserError(f"{STATUS_ROOT_VARIABLE} and {RUN_ID_VARIABLE} are not set: no run to summarise")
    statuses = read_step_statuses(root, run_id)
    good = succeeded if succeeded is not None else all(status.state == "succeeded" for status in statuses)
    text = render_summary(run_id, statuses, steps=steps, succeeded=good, links=_links(statuses))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    print(text, flush=True)
    try:
        finish_parent_run(good, Path(path))
    except Exception as error:  # the summary stands; a tracking server that is away does not spoil it
        print(f"run summary: the MLflow run could not be ended ({error})", flush=True)
    return text


def render_summary(
    run_id: str,
    statuses: Sequence[StepStatus],
    *,
    steps: Sequence[str] = (),
    succeeded: bool,
    links: dict[str, str] | None = None,
) -> str:
    """The summary as Markdown: verdict first, then a table of steps, then what failed and why."""
    found = {status.step: status for status in statuses}
    order = [*steps, *(name for name in found if name not in steps)]
    failed = [status for status in statuses if status.state in ("failed", "bad_input", "interrupted")]
    lines = [f"# Run {run_id}: {'succeeded' if succeeded and not failed else 'failed'}", ""]
    for status in failed:
        lines += [f"**{status.step}** {_STATES[status.state]}: {status.error}", ""]
    if not succeeded and not failed:
        running = [status.step for status in statuses if status.state == "running"]
        lines += [
            f"**{running[-1]}** began and never ended: killed, evicted or out of memory."
            if running
            else "No step has told why: see the pods' events and logs.",
            "",
        ]
    if succeeded and not failed and nothing_new(statuses, steps):
        lines += [
            "**Nothing new**: the data is that of the newest registered version; training was left out.",
            "",
        ]
    judged = found.get("evaluate", StepStatus("evaluate")).details
    if "verdict" in judged:
        word = "promote" if judged["promote"] else "do not promote"
        lines += [f"Gate: **{word}**. {judged['verdict']}", ""]
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


def nothing_new(statuses: Sequence[StepStatus], steps: Sequence[str]) -> bool:
    """Whether a run that succeeded stopped after data preparation because it had found no new data.

    Data preparation may have come from the cache and tell nothing; the evaluation never does, so that a run
    that was to stop without new data, ended well and has not evaluated has stopped.
    """
    found = {status.step: status for status in statuses}
    asked = found.get("preflight", StepStatus("preflight")).details.get("known_content")
    return bool(asked) and "evaluate" in steps and "evaluate" not in found


_STATES = {"failed": "failed", "bad_input": "met bad input", "interrupted": "was interrupted"}


def _row(name: str, status: StepStatus | None) -> str:
    if status is None:
        return f"| {name} | – | | | from the cache, or not reached |"
    seconds = f"{status.ended - status.started:,.1f} s" if status.ended else ""
    state = f"{_MARKS.get(status.state, '?')} {status.state.replace('_', ' ')}"
    return f"| {name} | {state} | {seconds} | {status.gpu_seconds / 3600:.3f} | {_note(status.details)} |"


def _note(details: dict[str, Any]) -> str:
    counts = details.get("counts") or {}
    flat = [f"{key} {value:,}" for key, value in counts.items() if isinstance(value, int)][:4]
    return ", ".join(flat).replace("|", "/")


def _links(statuses: Sequence[StepStatus]) -> dict[str, str]:
    parents = [s.details["mlflow_parent_run_id"] for s in statuses if s.details.get("mlflow_parent_run_id")]
    return mlflow_links(parents[0]) if parents else {}
