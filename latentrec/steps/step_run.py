"""``step_run``: what every command wraps its work in, so that a step is seen while it runs and after.

It records the step's status (the run summary reads it) and opens the step's nested MLflow run under the
pipeline's run. Without ``MLFLOW_TRACKING_URI`` only the status is recorded.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentrec.core import Interrupted, UserError
from latentrec.core.redact import redact, redact_values
from latentrec.core.settings import (
    STEP_MLFLOW_RUN_VARIABLE,
    STEP_VARIABLE,
    TRACKING_BUFFER_MB_VARIABLE,
    TRACKING_FLUSH_SECONDS_VARIABLE,
    TRACKING_OPEN_SECONDS_VARIABLE,
)
from latentrec.steps.status import StepStatus, step_status
from latentrec.storage import read_manifest
from latentrec.tracking.client_limits import bound_http
from latentrec.tracking.delivery import Delivery
from latentrec.tracking.mlflow_logger import MlflowMetricLogger, queue_directory
from latentrec.tracking.run_context import RunContext, adopt_settings, is_main_process
from latentrec.tracking.runs import RunTree
from latentrec.tracking.system_metrics import SystemMetrics
from latentrec.tracking.unsent import (
    list_undelivered,
    send_undelivered,
    store_undelivered,
    undelivered_root,
)
from latentrec.training.common.metric_logger import MetricLogger, NullMetricLogger

OPEN_SECONDS = 20.0
WORKFLOW_TAG = "kfp.workflow"
"""Name of the Argo workflow that runs a pipeline run, on its MLflow run."""


@dataclass
class StepRun:
    """A running step: where its metrics go (``metric_logger``) and its ``status`` for the run summary."""

    metric_logger: MetricLogger
    status: StepStatus

    @property
    def mlflow_run_id(self) -> str | None:
        """The step's MLflow run, if it is tracked and the server has answered."""
        return self.metric_logger.run_id if isinstance(self.metric_logger, MlflowMetricLogger) else None

    def use_dataset(self, directory: str | Path) -> None:
        """Log a dataset directory as an input of the run, by its fingerprint."""
        if isinstance(self.metric_logger, MlflowMetricLogger):
            manifest = read_manifest(directory, "dataset", verify=False)
            self.metric_logger.log_dataset(manifest, str(directory))

    def set_tags(self, tags: Mapping[str, str], *, parent: bool = False) -> None:
        """Tag the step's run, or the pipeline's."""
        if isinstance(self.metric_logger, MlflowMetricLogger):
            self.metric_logger.set_tags(tags, parent=parent)

    def log_report(self, path: str | Path, name: str) -> None:
        """Attach a report, which MLflow shows, to the step's run and, as ``name``, to the pipeline's."""
        if isinstance(self.metric_logger, MlflowMetricLogger):
            self.metric_logger.log_artifact(path)
            with tempfile.TemporaryDirectory() as folder:
                renamed = Path(folder) / name
                shutil.copyfile(path, renamed)
                self.metric_logger.log_artifact(renamed, parent=True)

    def log_results(self, metrics: Mapping[str, float]) -> None:
        """Figures that the pipeline's run is compared by."""
        if isinstance(self.metric_logger, MlflowMetricLogger):
            self.metric_logger.log_metrics(metrics, 0, parent=True)

    def link_model(self, model_id: str | None) -> None:
        """Show a logged model on the pipeline's run."""
        if model_id and isinstance(self.metric_logger, MlflowMetricLogger):
            self.metric_logger.log_model(model_id)


@contextmanager
def step_run(step: str, *, config: Any = None, dataset: str | Path | None = None) -> Iterator[StepRun]:
    """Run a step: status recorded, nested MLflow run opened or resumed, figures streamed.

    Args:
        step: name of the step. ``LATENTREC_STEP`` overrides it where one DAG runs a command twice.
        config: frozen dataclass or dictionary; logged as parameters and as ``config.json``.
        dataset: dataset directory that the step reads; logged as the run's input.

    Raises:
        Whatever the body raises, after the run was marked as failed (or killed, when interrupted). A
        tracking server that is away raises nothing.
    """
    step = os.environ.get(STEP_VARIABLE) or step
    adopt_settings()  # in every rank: all of them may read the registry
    if not is_main_process():
        yield StepRun(NullMetricLogger(), StepStatus(step=step))
        return
    context = RunContext.from_environment()
    with step_status(step) as status:
        if not context.tracking_uri:
            yield StepRun(NullMetricLogger(), status)
            return
        metric_logger = _open_metric_logger(context, step, status)
        system = SystemMetrics(metric_logger)
        run = StepRun(metric_logger, status)
        outcome = "FAILED"
        try:
            if config is not None:
                _log_config(metric_logger, config if isinstance(config, dict) else config.to_dict())
            if dataset is not None:
                run.use_dataset(dataset)
            yield run
            outcome = "FINISHED"
        except (Interrupted, KeyboardInterrupt):
            outcome = "KILLED"
            raise
        except BaseException as error:
            metric_logger.set_tags({"error": str(error) or type(error).__name__})
            raise
        finally:
            system.stop()
            metric_logger.close(
                outcome, _flush_seconds(), lambda left: store_undelivered(context, step, left)
            )
            os.environ.pop(STEP_MLFLOW_RUN_VARIABLE, None)


def ensure_parent_run(
    params: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
) -> str | None:
    """Make (or find) the pipeline's MLflow run; ``preflight`` calls it first. ``None``: nothing is tracked.

    Args:
        params: the pipeline's parameters, logged on the parent.
        tags: further tags of the parent (a link to the run in KFP's UI).

    Raises:
        UserError: the tracking server does not answer: a run that cannot be recorded should not start.
    """
    context = RunContext.from_environment()
    if not context.tracking_uri:
        return None
    bound_http()
    from mlflow.entities import Param, RunTag

    try:
        tree = RunTree(context)
        parent = tree.parent()
        if parent is not None:
            tree.client.log_batch(
                parent,
                params=[Param(name, redact(str(value))[:5900]) for name, value in (params or {}).items()],
                tags=[RunTag(name, redact(str(value))) for name, value in (tags or {}).items()],
            )
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"MLFLOW_TRACKING_URI {context.tracking_uri}: the tracking server cannot be used ({reason})",
            code="tracking.unreachable",
        ) from error
    return parent


def finish_parent_run(
    status: str, summary: Path | None = None, *, steps: Mapping[str, str] | None = None
) -> str | None:
    """End the pipeline's MLflow run and attach the run summary; the exit handler calls it last.

    Args:
        status: MLflow's: ``FINISHED``, ``FAILED`` or ``KILLED``.
        summary: file to attach, as ``summary.md`` whatever its name.
        steps: MLflow's status of each step, for the runs of those that were killed.
    """
    context = RunContext.from_environment()
    if not context.tracking_uri or not (context.run_id or context.injected_run):
        return None
    bound_http()
    tree = RunTree(context)
    parent = tree.parent()
    assert parent is not None
    deliver_undelivered(context)
    if summary is not None:
        tree.client.log_text(parent, summary.read_text(encoding="utf-8"), "summary.md")
    tree.end(parent, status, steps or {})
    return parent


def end_abandoned_runs(is_over: Callable[[str], bool]) -> list[str]:
    """End the MLflow runs of earlier pipeline runs that were left running; their ids.

    Those whose exit handler never came to it, and steps that were opened again after it.

    Args:
        is_over: whether the workflow of a name has ended.
    """
    context = RunContext.from_environment()
    if not context.tracking_uri:
        return []
    bound_http()
    tree = RunTree(context)

    def abandoned(parent: Any) -> bool:
        tags = parent.data.tags
        workflow = tags.get(WORKFLOW_TAG)
        return bool(workflow) and tags.get("pipeline.run_id") != context.run_id and is_over(workflow)

    ended = []
    for run in tree.running_parents():
        if abandoned(run):
            tree.end(run.info.run_id, "KILLED", {})
            ended.append(run.info.run_id)
    for run, parent in tree.running_steps_of_ended_runs():
        if abandoned(parent):
            tree.client.set_terminated(run.info.run_id, status="KILLED")
            ended.append(run.info.run_id)
    return ended


def deliver_undelivered(context: RunContext) -> int:
    """Send what earlier steps of this run could not; returns how many records."""
    root = undelivered_root(context)
    if root is None or not context.tracking_uri:
        return 0
    return sum(
        send_undelivered(uri, Delivery(context, step, lambda _: None)) for step, uri in list_undelivered(root)
    )


def _open_metric_logger(context: RunContext, step: str, status: StepStatus) -> MlflowMetricLogger:
    bound_http()
    assert context.tracking_uri is not None

    def opened(run_id: str) -> None:
        os.environ[STEP_MLFLOW_RUN_VARIABLE] = run_id
        status.details["mlflow_run_id"] = run_id

    delivery = Delivery(context, step, opened)
    directory = queue_directory(context.tracking_uri, context.run_id, step)
    metric_logger = MlflowMetricLogger(delivery, directory, _buffer_bytes())
    metric_logger.wait_until_open(float(os.environ.get(TRACKING_OPEN_SECONDS_VARIABLE) or OPEN_SECONDS))
    return metric_logger


def _log_config(metric_logger: MlflowMetricLogger, config: dict[str, Any]) -> None:
    metric_logger.log_params(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(
            json.dumps(redact_values(config), indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8"
        )
        metric_logger.log_artifact(path)


def _flush_seconds() -> float:
    return float(os.environ.get(TRACKING_FLUSH_SECONDS_VARIABLE) or 60)


def _buffer_bytes() -> int:
    return int(float(os.environ.get(TRACKING_BUFFER_MB_VARIABLE) or 256) * 1e6)
