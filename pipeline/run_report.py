"""What `make run` says: settings in a line, the table, where everything is, what comes next."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentrec.core.redact import redact
from latentrec.evaluation.report.console_table import results_table
from latentrec.steps.parameters import REVIEWS
from pipeline.dags import pipeline_of
from pipeline.local_runner import Outcome, RunFolders

_INPUTS = (REVIEWS, "data_metadata")


def heading(system: str, parameters: Mapping[str, Any], folders: RunFolders) -> str:
    """The pipeline, its inputs and, in a line, every setting that is not the pipeline's default."""
    signature = inspect.signature(pipeline_of(system).pipeline_func).parameters
    inputs = [shown_path(str(parameters[name])) for name in _INPUTS if parameters.get(name)]
    changed = [
        f"{name}={value}"
        for name, value in parameters.items()
        if name not in _INPUTS and (name not in signature or signature[name].default != value)
    ]
    lines = [f"pipeline  {system} on {', '.join(inputs)}"]
    lines.append(f"settings  {' '.join(changed) or 'all defaults'}")
    lines.append(f"into      {shown_path(str(folders.root))}/ (RUNS_DIR)")
    return redact("\n".join(lines))


def report(outcome: Outcome, folders: RunFolders) -> str:
    """How the run ended: results, reports, model, time of each step, and the next commands."""
    lines = ["", "=" * 78]
    evaluation = outcome.details("evaluate").get("output")
    if evaluation and Path(evaluation).is_dir():
        lines += [results_table(evaluation), ""]
    lines += _reports(outcome)
    if outcome.succeeded and not evaluation and outcome.details("preflight").get("known_content"):
        lines.append("nothing new: the data is that of the newest registered version; training was left out")
    registered = outcome.details("register")
    if registered.get("registered"):
        lines.append(f"model     {registered['registered']}, served as {registered['served_as']}")
        lines.append(f"gate      {registered['verdict']}")
    seconds = [f"{s.step} {s.ended - s.started:.0f}" for s in outcome.statuses if s.ended]
    lines.append(f"seconds   {outcome.seconds:.0f} in all: {', '.join(seconds)}")
    lines.append(f"log       {shown_path(str(folders.log(outcome.run_id)))}")
    if outcome.succeeded and registered.get("served_as"):
        lines += _next(registered["served_as"], outcome)
    if outcome.interrupted:
        lines.append("STOPPED   every step has ended; the same command resumes from the checkpoints")
    elif not outcome.succeeded:
        lines.append(f"FAILED    {_reason(outcome)}")
    return "\n".join(lines)


def _reason(outcome: Outcome) -> str:
    status = outcome.failed_step
    if status is not None:
        return f"step '{status.step}': {status.error}"
    if outcome.failed:
        return (
            f"step '{outcome.failed}' ended before it could say why; its last lines are above and in the log"
        )
    return "see the log"


def _reports(outcome: Outcome) -> list[str]:
    found = []
    for label, step in (("data", "data_prep"), ("report", "evaluate")):
        output = outcome.details(step).get("output")
        if output and (Path(output) / "report.html").is_file():
            found.append(f"{label:<9} {shown_path(output)}/report.html")
    return found


def _next(served_as: str, outcome: Outcome) -> list[str]:
    """Commands that can be pasted; the history is of the catalogue's three most bought items."""
    lines = ["next      make mlflow-ui", f"          make demo MODEL={served_as}"]
    dataset = outcome.details("data_prep").get("output")
    if dataset and not served_as.startswith(("models:/reczero", "models:/recone")):
        lines.append(
            f'          make recommend MODEL={served_as} HISTORY="{",".join(popular_keys(Path(dataset)))}"'
        )
    return lines


def popular_keys(dataset: Path) -> list[str]:
    """Keys of a dataset's three most bought items."""
    import numpy as np
    import pyarrow.parquet as pq

    items = pq.read_table(dataset / "interactions.parquet", columns=["item_id"])["item_id"].to_numpy()
    keys = pq.read_table(dataset / "items.parquet", columns=["item_key"])["item_key"]
    best = np.argsort(-np.bincount(items), kind="stable")[:3]
    return [keys[int(item)].as_py() for item in best]


def shown_path(location: str) -> str:
    """A path as it would be typed from here, where that is shorter."""
    if "://" in location or not os.path.isabs(location):
        return location
    relative = os.path.relpath(location)
    return location if relative.startswith("..") else relative
