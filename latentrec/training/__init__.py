"""One trainer a stage, each resumable, seeded and streamed to a metric sink."""

from latentrec.training.sink import MetricSink, NullSink

__all__ = ["MetricSink", "NullSink"]
