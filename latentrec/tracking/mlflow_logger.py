"""Streams a step's figures to MLflow from a thread of its own; a server that is away stops nothing.

Everything goes to a queue on disk first (:class:`~latentrec.tracking.unsent.DiskQueue`), then to the
server, in order. While the server is away the queue grows up to a bound, a warning says so once, and when it
is back everything is sent. What could not be sent by the end of the step is stored for a later one, never
dropped in silence.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from latentrec.core.redact import redact
from latentrec.core.settings import METRIC_QUEUE_DIR_VARIABLE
from latentrec.core.text import printable
from latentrec.storage import Manifest
from latentrec.tracking.delivery import MAX_PARAM_LENGTH, Delivery, MetricsRejected, TrackingRefused
from latentrec.tracking.unsent import DiskQueue

_logger = logging.getLogger(__name__)
AWAY, BACK = "the tracking server is away", "the tracking server is back"
_POLL_S = 0.5
_MAX_BACKOFF_S = 15.0
_POISON_ATTEMPTS = 5
_BATCH = 500
_FORBIDDEN = re.compile(r"[^\w\-. /:]")


class MlflowMetricLogger:
    """Logs metrics to MLflow from a thread of its own; no call raises or waits for the server.

    Args:
        delivery: opens the run and writes to it.
        queue_directory: folder of the queue on disk.
        max_bytes: bound of that queue, and of the files kept beside it.
    """

    def __init__(self, delivery: Delivery, queue_directory: Path, max_bytes: int):
        self._delivery = delivery
        self._queue = DiskQueue(queue_directory, max_bytes)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._abandon = threading.Event()
        self._rejected: list[str] = []
        self._away_since: float | None = None
        self._refused: str | None = None
        self._warned_full = False
        self._thread = threading.Thread(target=self._run, name="mlflow-metric_logger", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The step's MLflow run; ``None`` until the server has opened it."""
        return self._delivery.run_id

    def wait_until_open(self, seconds: float) -> bool:
        """Wait for the run to be opened, at most ``seconds``."""
        return self._delivery.opened.wait(seconds)

    def log_metrics(self, metrics: Mapping[str, float], step: int, *, parent: bool = False) -> None:
        """Figures at one training step. Non-finite values are dropped; ``@`` and its like become ``_``.

        ``parent``, here and below: onto the pipeline's run instead of the step's.
        """
        values = {
            _FORBIDDEN.sub("_", name): float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        if values:
            record = {"kind": "metrics", "values": values, "step": int(step), "time": _now_ms()}
            self._put(record | {"parent": parent})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings; long values are shortened (``config.json`` holds them whole)."""
        values = {
            _FORBIDDEN.sub("_", name): redact(str(value))[:MAX_PARAM_LENGTH] for name, value in params.items()
        }
        for name, value in values.items():
            self._put({"kind": "params", "values": {name: value}})

    def log_artifact(self, path: str | Path, *, parent: bool = False) -> None:
        """A file or folder; copied now, because a step's working directory is renamed or removed."""
        source = Path(path)
        if not source.exists():
            _warn(f"{source} is not there and could not be logged")
            return
        kept = self._queue.keep_file(source)
        if kept is None:
            _warn(f"no room to keep {source} for the tracking server; it is not logged")
            self._queue.refused += 1
            return
        self._put({"kind": "artifact", "path": str(kept), "parent": parent})

    def log_dataset(self, manifest: Manifest, source: str) -> None:
        """An input of the step's run and of the pipeline's: MLflow's dataset, our fingerprint its digest."""
        profile = json.dumps({"fingerprint": manifest.fingerprint, "counts": manifest.counts}, default=str)
        record = {
            "name": Path(source).name or "dataset",
            "fingerprint": manifest.fingerprint,
            "source": redact(source),
        }
        record |= {"kind": "dataset", "profile": profile[:16000], "context": "training"}
        for parent in (False, True):
            self._put(record | {"parent": parent})
            self.set_tags({"dataset.fingerprint": manifest.fingerprint}, parent=parent)

    def set_tags(self, tags: Mapping[str, str], *, parent: bool = False) -> None:
        """Tags of the step's run, or of the pipeline's."""
        values = {name: redact(str(value))[:4900] for name, value in tags.items()}
        self._put({"kind": "tags", "values": values, "parent": parent})

    def log_model(self, model_id: str) -> None:
        """Show a logged model among the outputs of the pipeline's run."""
        self._put({"kind": "model", "model_id": model_id, "parent": True})

    def close(
        self, status: str, flush_seconds: float, store_undelivered: Callable[[bytes], str | None]
    ) -> None:
        """End the run (``FINISHED``, ``FAILED`` or ``KILLED``) and wait for everything to arrive.

        Args:
            status: MLflow's word for how the step went.
            flush_seconds: how long to wait while the server is away.
            store_undelivered: stores what could not be sent (JSON lines); returns where, or ``None``.
        """
        if self._queue.refused:
            self.set_tags({"tracking.refused_records": str(self._queue.refused)})
        if self._rejected:
            self.set_tags({"tracking.rejected": " | ".join(self._rejected)[:4900]})
        self._put({"kind": "end", "status": status, "time": _now_ms()})
        self._closing.set()
        self._wake.set()
        self._drain(flush_seconds)
        if self._thread.is_alive():
            self._abandon.set()
            self._wake.set()
            self._thread.join(5)
        delivered = self._queue.is_empty
        if not delivered and self._refused is None:
            left = self._queue.undelivered()
            place = store_undelivered(left)
            lines = left.count(b"\n")
            _warn(
                f"the tracking server did not come back within {flush_seconds:.0f} s; {lines:,} records wait "
                f"in {place or self._queue.directory} and are sent by the run's last step, or by a retry"
            )
        self._queue.close(remove=delivered or self._refused is not None)

    def _drain(self, flush_seconds: float) -> None:
        """Wait for the queue to empty; only time in which the server is away counts against the limit."""
        away = 0.0
        while self._thread.is_alive() and away < flush_seconds:
            start = time.monotonic()
            self._thread.join(min(0.2, flush_seconds))
            if self._away_since is not None:
                away += time.monotonic() - start

    def _put(self, record: dict[str, Any]) -> None:
        if self._queue.append(record):
            self._wake.set()
        elif not self._warned_full:
            self._warned_full = True
            _warn(
                f"the buffer for the tracking server is full ({self._queue.max_bytes / 1e6:.0f} MB); further "
                "figures are only counted (tag tracking.refused_records); raise LATENTREC_TRACKING_BUFFER_MB"
            )

    def _run(self) -> None:
        backoff, failures = _POLL_S, 0
        while not self._abandon.is_set():
            try:
                if self._queue.is_empty:
                    self._delivery.open()
                    if self._closing.is_set() and self._queue.is_empty:  # opening may have taken a minute
                        return
                    self._wake.wait(_POLL_S if self._away_since else 60)
                    self._wake.clear()
                    continue
                self._deliver(1 if failures else _BATCH)
                self._back()
                backoff, failures = _POLL_S, 0
            except TrackingRefused as refusal:
                self._refused = _first_line(refusal)
                _warn(
                    f"MLflow cannot be used ({self._refused}); nothing of this step is tracked; correct "
                    "MLFLOW_TRACKING_URI, or unset it"
                )
                self._delivery.opened.set()  # there is nothing to wait for
                return
            except Exception as error:
                failures = self._away(error, failures)
                self._abandon.wait(backoff)
                backoff = min(backoff * 2, _MAX_BACKOFF_S)

    def _deliver(self, limit: int) -> None:
        records = self._queue.peek(limit)
        wanted = [record for record in records if record["kind"] != "damaged" and not _has_arrived(record)]
        try:
            self._delivery.send(wanted)
        except MetricsRejected as refusal:
            if len(records) > 1:
                self._deliver(1)
                return
            self._reject(records[0], str(refusal))
        self._queue.advance(len(records))
        for record in wanted:
            if record["kind"] == "artifact":
                self._queue.drop_file(Path(record["path"]))

    def _reject(self, record: dict[str, Any], reason: str) -> None:
        reason = printable(redact(reason.splitlines()[0]))[:300] if reason else "no reason given"
        what = f"{record['kind']} {', '.join(record.get('values', {}))}".strip()
        self._rejected.append(f"{what}: {reason}")
        _warn(f"the tracking server refuses {what}: {reason}")

    def _away(self, error: Exception, failures: int) -> int:
        """A failure that may pass; a record that keeps failing while the server answers is set aside."""
        reason = _first_line(error)
        if self._away_since is None:
            self._away_since = time.monotonic()
            _warn(f"{AWAY} ({reason}); figures are kept on disk and sent when it is back")
        if self._delivery.run_id is None or not self._delivery.is_up():
            return 0
        if failures + 1 >= _POISON_ATTEMPTS:
            records = self._queue.peek(1)
            if records:
                self._reject(records[0], reason)
                self._queue.advance(1)
            return 0
        return failures + 1

    def _back(self) -> None:
        if self._away_since is not None:
            seconds = time.monotonic() - self._away_since
            self._away_since = None
            _logger.warning("%s after %.0f s", BACK, seconds)


def queue_directory(tracking_uri: str, run_id: str | None, step: str) -> Path:
    """Folder of a step's queue: a retry on this machine gets the same, and sends what was left in it."""
    given = os.environ.get(METRIC_QUEUE_DIR_VARIABLE)
    root = Path(given) if given else _private_folder()
    key = hashlib.sha256(f"{tracking_uri}\n{run_id or os.getpid()}".encode()).hexdigest()[:16]
    return root / f"{key}-{re.sub(r'[^A-Za-z0-9_.-]', '_', step)}"


def _has_arrived(record: Mapping[str, Any]) -> bool:
    """Whether a process that was killed had sent this: a file's copy is removed once it has arrived."""
    return record["kind"] == "artifact" and not Path(record["path"]).exists()


def _now_ms() -> int:
    return int(time.time() * 1000)


def _first_line(error: BaseException) -> str:
    return printable(redact((str(error) or type(error).__name__).splitlines()[0]))[:200]


def _private_folder() -> Path:
    """A folder below the temporary one that is this user's: another user's of the same name is not writable.

    Where nothing can be made there, a fresh folder is; a retry then does not find what was left.
    """
    root = Path(tempfile.gettempdir()) / f"latentrec-tracking-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        if root.stat().st_uid == os.getuid() and not root.is_symlink() and os.access(root, os.W_OK | os.X_OK):
            return root
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="latentrec-tracking-"))


def _warn(message: str) -> None:
    _logger.warning("%s", message)
