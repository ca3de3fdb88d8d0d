"""Copies the log of a TrainJob's first node to the step's own: in order, once, over restarts of the job."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from latentrec.steps.train_job import CONTAINER
from latentrec.steps.train_job_state import first_node, seconds_since

logger = logging.getLogger(__name__)

CONNECT_S, SILENT_S = 10, 120
"""A connection that has been silent for so long is opened again."""


def to_stderr(line: str) -> None:
    """A line of another pod's log, as it is: its own log format has been applied there."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@dataclass
class FirstNodeLog:
    """The log of a job's first node, read while the job runs.

    Args:
        core: Kubernetes' core API.
        namespace: of the job.
        pods: lists the job's pods; a restarted job has others.
        write: takes the log line by line.
    """

    core: Any
    namespace: str
    pods: Callable[[], list[dict[str, Any]]]
    write: Callable[[str], None] = to_stderr

    def follow(self, stop: threading.Event, pause_s: float) -> None:
        """Write what the first node logs until ``stop`` is set; for a thread of its own.

        Args:
            stop: set when the job has ended.
            pause_s: between two questions while there is no pod.
        """
        pod, latest = "", ""
        while not stop.is_set():
            try:
                newest = first_node(self.pods())
                if newest is None:
                    stop.wait(pause_s)
                    continue
                if newest != pod:
                    pod, latest = newest, ""
                latest = self._copy(pod, latest)
            except Exception as error:  # a log that cannot be read must not end the training
                logger.debug("the log of %s cannot be read (%s)", pod, type(error).__name__)
            stop.wait(min(pause_s, 1.0))

    def _copy(self, pod: str, latest: str) -> str:
        """Write a pod's log after the time stamp ``latest``; returns that of the last line."""
        seconds = seconds_since(latest)
        options: dict[str, Any] = {"since_seconds": seconds} if seconds is not None else {}
        answer = self.core.read_namespaced_pod_log(
            pod,
            self.namespace,
            container=CONTAINER,
            follow=True,
            timestamps=True,
            _preload_content=False,
            _request_timeout=(CONNECT_S, SILENT_S),
            **options,
        )
        rest = b""
        try:
            for block in answer.stream(amt=None, decode_content=False):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    stamp, _, text = line.decode("utf-8", "replace").partition(" ")
                    if stamp > latest:
                        latest = stamp
                        self.write(text)
        finally:
            answer.release_conn()
        return latest
