"""From queued records to MLflow calls; says whether a failure will pass or not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.tracking.run_context import RunContext
from latentrec.tracking.runs import RunTree

_PASSING = {
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "UNAUTHENTICATED",
    "DEADLINE_EXCEEDED",
    "CANCELLED",
    "ABORTED",
    "IO_ERROR",
    "SERVICE_UNDER_MAINTENANCE",
}
MAX_PARAM_LENGTH = 5900


class MetricsRejected(RuntimeError):
    """The server is there and refuses this record: sending it again cannot help."""


class TrackingRefused(RuntimeError):
    """The address itself is refused (a kind of store that MLflow no longer takes, an experiment that was
    deleted): waiting cannot help."""


class Delivery:
    """Opens the step's run on first use and writes records into it.

    Attributes:
        run_id: of the step's MLflow run; ``None`` until the server has opened it.
        opened: set once ``run_id`` is known.
    """

    def __init__(self, context: RunContext, step: str, on_open: Callable[[str], None]):
        self._context, self._step, self._on_open = context, step, on_open
        self._tree: RunTree | None = None
        self.run_id: str | None = None
        self.parent_id: str | None = None
        self.opened = threading.Event()

    def open(self) -> str:
        """Find or make the run.

        Raises:
            TrackingRefused: this address will never take anything.
            Exception: whatever the client raises while the server is away.
        """
        if self.run_id is None:
            try:
                if self._tree is None:
                    self._tree = RunTree(self._context)
                self.parent_id = self._tree.parent()
                self.run_id = self._tree.step(self._step)
            except Exception as error:
                if isinstance(error, UserError | ImportError) or not passes(error):
                    raise TrackingRefused(str(error)) from error
                raise
            self._on_open(self.run_id)
            self.opened.set()
        return self.run_id

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """Write records of one kind, in one call where MLflow has one.

        Raises:
            Rejected: the server will never take them.
            Exception: the server is away or busy; send them again later.
        """
        run_id = self.open()
        to_parent = [record for record in records if record.get("parent")]
        try:
            self._send(run_id, [record for record in records if not record.get("parent")])
            if self.parent_id and self.parent_id != run_id:  # a command by hand has none
                self._send(self.parent_id, to_parent)
        except Exception as error:
            if not passes(error):
                raise MetricsRejected(str(error)) from error
            raise

    def is_up(self) -> bool:
        """Whether the server answers about this run."""
        assert self._tree is not None
        try:
            self._tree.client.get_run(self.open())
        except Exception:
            return False
        return True

    def _send(self, run_id: str, records: Sequence[dict[str, Any]]) -> None:
        from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag

        assert self._tree is not None
        client = self._tree.client
        for kind in dict.fromkeys(record["kind"] for record in records):
            group = [record for record in records if record["kind"] == kind]
            if kind == "metrics":
                points = [
                    Metric(name, value, record["time"], record["step"])
                    for record in group
                    for name, value in record["values"].items()
                ]
                for start in range(0, len(points), 1000):
                    client.log_batch(run_id, metrics=points[start : start + 1000])
            elif kind in ("params", "tags"):
                pairs = {name: value for record in group for name, value in record["values"].items()}
                items = list(pairs.items())
                for start in range(0, len(items), 100):
                    chunk = items[start : start + 100]
                    if kind == "params":
                        client.log_batch(run_id, params=[Param(*pair) for pair in chunk])
                    else:
                        client.log_batch(run_id, tags=[RunTag(*pair) for pair in chunk])
            elif kind == "artifact":
                for record in group:
                    _log_artifact(client, run_id, record)
            elif kind == "dataset":
                for record in group:
                    client.log_inputs(run_id, datasets=[_dataset_input(record)])
            elif kind == "model":
                for record in group:
                    client.log_outputs(run_id, models=[LoggedModelOutput(record["model_id"], step=0)])
            elif kind == "end":
                began = client.get_run(run_id).info.start_time  # the clock may have been set back since
                ended = max(group[-1]["time"], began)
                client.set_terminated(run_id, status=group[-1]["status"], end_time=ended)


def passes(error: BaseException) -> bool:
    """Whether the same call may succeed later: anything but a refusal by MLflow or a lost file."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in _PASSING
    return not isinstance(error, FileNotFoundError)


def _log_artifact(client: Any, run_id: str, record: dict[str, Any]) -> None:
    path = Path(record["path"])
    if path.is_dir():
        client.log_artifacts(run_id, str(path), artifact_path=path.name)
    else:
        client.log_artifact(run_id, str(path))


def _dataset_input(record: dict[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return DatasetInput(
        Dataset(
            name=record["name"],
            digest=record["fingerprint"][:32],
            source_type="latentrec_dataset",
            source=record["source"],
            profile=record["profile"],
        ),
        tags=[InputTag("mlflow.data.context", record["context"])],
    )
