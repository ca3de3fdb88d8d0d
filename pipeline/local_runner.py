"""A pipeline run on this machine through KFP's local runner: where its files go and how it ended."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import secrets
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import local

from latentrec.core.redact import redact_values
from latentrec.core.settings import CHECKPOINT_ROOT_VARIABLE, LOCAL_RUN_VARIABLE, STATUS_ROOT_VARIABLE
from latentrec.steps.local_run import local_identity
from latentrec.steps.status import StepStatus, read_step_statuses
from pipeline.dags import pipeline_of
from pipeline.kfp_compat import (
    artifacts_as_launched,
    named_outputs_in_conditions,
    stopped_by_first_failure,
)
from pipeline.log_filter import filtered_log
from pipeline.side_by_side import side_by_side
from pipeline.stop_request import StopRequest
from pipeline.tracking_uri import tracking_uri

EXIT_STEP = "run_summary"


@dataclass(frozen=True)
class RunFolders:
    """Everything that local runs write stands below one folder (``RUNS_DIR``)."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """What the steps need to know of their surroundings; what the user has set stays."""
        defaults = {
            "MLFLOW_TRACKING_URI": tracking_uri(self.root),
            STATUS_ROOT_VARIABLE: str(self.root / "status"),
            CHECKPOINT_ROOT_VARIABLE: str(self.root / "checkpoints"),
        }
        return {name: os.environ.get(name) or value for name, value in defaults.items()}

    @property
    def tracks_here(self) -> bool:
        """Whether the tracking store is the embedded one."""
        return self.environment["MLFLOW_TRACKING_URI"] == tracking_uri(self.root)

    def log(self, run_id: str) -> Path:
        """Everything that KFP and the steps of one run have printed."""
        return self.root / "logs" / f"{run_id}.log"


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        run_id: of the pipeline run.
        succeeded: KFP's verdict and every step's own.
        seconds: wall time.
        statuses: of the steps that began, in order.
        interrupted: stopped by Ctrl-C or SIGTERM.
        failed: name of the step whose process failed, whether or not it has said why.
    """

    run_id: str
    succeeded: bool
    seconds: float
    statuses: list[StepStatus] = field(default_factory=list)
    interrupted: bool = False
    failed: str = ""

    def details(self, step: str) -> dict[str, Any]:
        """What one step has reported; empty where it did not run."""
        return next((status.details for status in self.statuses if status.step == step), {})

    @property
    def failed_step(self) -> StepStatus | None:
        """The step that stopped the run."""
        bad = [status for status in self.statuses if status.state != "succeeded"]
        # Steps beside the one that failed were interrupted because of it.
        return min(bad, key=lambda status: status.state == "interrupted", default=None)


def new_run_id(system: str) -> str:
    """A name for a run that sorts by time and is unique."""
    return f"{system}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


@contextmanager
def tried_once(pipeline: Any) -> Iterator[Any]:
    """The pipeline without retries: no node goes away here, and a wrong setting would be tried for minutes.

    A run that was stopped resumes from its checkpoints when it is started again.
    """
    spec = pipeline.pipeline_spec
    before = type(spec)()
    before.CopyFrom(spec)
    try:
        for part in (spec.root, *spec.components.values()):
            for task in part.dag.tasks.values() if part.HasField("dag") else ():
                task.ClearField("retry_policy")
        yield pipeline
    finally:
        spec.CopyFrom(before)


def run_pipeline(
    system: str, parameters: Mapping[str, Any], folders: RunFolders, *, runner: Any = None, at_once: int = 1
) -> Outcome:
    """Run one pipeline through ``kfp.local`` and read how its steps went.

    Args:
        system: name of the pipeline.
        parameters: the pipeline's parameters.
        folders: where everything goes.
        runner: a KFP local runner; default: each step is a process of this environment.
        at_once: how many steps that do not wait for each other run at the same time.
    """
    folders.root.mkdir(parents=True, exist_ok=True)
    run_id = new_run_id(system)
    os.environ.update(folders.environment, LATENTREC_RUN_ID=run_id, LATENTREC_PIPELINE=system)
    if runner is None:  # a container sees no process of this machine
        os.environ[LOCAL_RUN_VARIABLE] = local_identity()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait take five times the CPU where other work shares the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    warnings.filterwarnings("ignore", message="You may be attemping to run a task", category=RuntimeWarning)
    warnings.filterwarnings("ignore", message="Task .* have no effect in the current local runner")
    local.init(
        runner=runner or local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folders.root / "pipeline_root"),
        raise_on_error=True,
    )
    begin, began = time.monotonic(), time.time()
    succeeded, stop = False, StopRequest()
    failed: list[str] = []
    pipeline_function = pipeline_of(system)
    number, total = itertools.count(1), _number_of_steps(pipeline_function)
    try:
        with (
            filtered_log(folders.log(run_id)) as lines,
            artifacts_as_launched(),
            named_outputs_in_conditions(),
            stopped_by_first_failure(
                lambda step: lines.announce(step, next(number), total),
                always=EXIT_STEP,
                stopped=lambda: stop.requested,
            ) as failed,
            tried_once(pipeline_function) as pipeline,
            side_by_side(at_once),
            stop.on_signals(),
        ):
            try:
                pipeline(**parameters)
                succeeded = not stop.requested
            except RuntimeError as error:
                logging.getLogger(__name__).info("%s", error)
            except KeyboardInterrupt:
                stop.end_children()
            if stop.requested:
                if (folders.root / "mlflow.db").exists() or not folders.tracks_here:
                    _close_tracking(stop)
                stop.wait()
    except KeyboardInterrupt:  # between two of these lines
        stop.wait()
    seconds = time.monotonic() - begin
    hide_secrets(folders.root / "pipeline_root", since=began)
    statuses = read_step_statuses(os.environ[STATUS_ROOT_VARIABLE], run_id)
    good = succeeded and all(status.state == "succeeded" for status in statuses)
    return Outcome(run_id, good, seconds, statuses, stop.requested, next(iter(failed), ""))


def hide_secrets(pipeline_root: Path, *, since: float) -> None:
    """Take passwords and signatures out of the addresses that KFP keeps of what steps handed on.

    Args:
        pipeline_root: KFP's folder.
        since: UTC seconds; older files are another run's.
    """
    for path in pipeline_root.rglob("executor_output.json"):
        with contextlib.suppress(OSError, ValueError):
            if path.stat().st_mtime < since - 1:
                continue
            content = json.loads(path.read_text(encoding="utf-8"))
            if (shown := redact_values(content)) != content:
                path.write_text(json.dumps(shown), encoding="utf-8")


def _number_of_steps(pipeline: Any) -> int:
    """Tasks of a pipeline that run something; those that only hold other tasks do not count."""
    spec = pipeline.pipeline_spec
    dags = [part.dag for part in (spec.root, *spec.components.values()) if part.HasField("dag")]
    names = [task.component_ref.name for dag in dags for task in dag.tasks.values()]
    return sum(not spec.components[name].HasField("dag") for name in names)


def _close_tracking(stop: StopRequest) -> None:
    """An interrupted run has no exit handler: end its MLflow run here, once its steps have ended theirs."""
    from latentrec.steps.step_run import finish_parent_run
    from latentrec.tracking.embedded_store import import_client

    import_client()
    stop.wait()
    try:
        finish_parent_run("KILLED")
    except Exception as error:  # the run was stopped, whatever the tracking server says
        logging.getLogger(__name__).warning("the MLflow run stays open: %s", error)
