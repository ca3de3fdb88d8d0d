"""CPU, memory, disk, network and GPU of the step's machine, sampled by MLflow's own monitors.

MLflow's monitor thread ends at the first call that fails; here its monitors write to the step's metric
logger, so that a tracking server that is away costs no sample.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Protocol

from latentrec.core import UserError

DEFAULT_INTERVAL_S = 10.0


class _MetricLogger(Protocol):
    def log_metrics(self, metrics: dict[str, float], step: int) -> None: ...


class SystemMetrics:
    """Samples every ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` seconds (10) until :meth:`stop`."""

    def __init__(self, metric_logger: _MetricLogger):
        self._metric_logger = metric_logger
        self._stop = threading.Event()
        text = os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or DEFAULT_INTERVAL_S
        try:
            self._interval = float(text)
        except ValueError:
            raise UserError(
                f"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL is {text!r}, expected seconds",
                code="config.bad_value",
            ) from None
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Log a last sample and end."""
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        monitors = _monitors()
        number = 0
        while True:
            stopping = self._stop.wait(self._interval if number else min(self._interval, 1.0))
            values: dict[str, float] = {}
            for monitor in monitors:
                try:
                    monitor.collect_metrics()
                    values |= {f"system/{name}": v for name, v in monitor.aggregate_metrics().items()}
                    monitor.clear_metrics()
                except Exception:
                    continue
            self._metric_logger.log_metrics(values, number)
            number += 1
            if stopping:
                return


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found: list[Any] = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        try:
            found.append(kind())
        except Exception:
            continue
    return found
