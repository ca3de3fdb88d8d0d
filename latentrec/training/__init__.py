"""One trainer a stage, each resumable, seeded and streamed to a metric metric_logger."""

from latentrec.training.common.metric_logger import MetricLogger, NullMetricLogger

__all__ = ["MetricLogger", "NullMetricLogger"]
