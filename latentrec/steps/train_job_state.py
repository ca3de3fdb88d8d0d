"""What a TrainJob and its pods say of themselves, read from the objects that the API server returns."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from latentrec.steps.train_job import CONTAINER, NODE_INDEX


def condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The job's condition of a type, where it holds."""
    for found in (job.get("status") or {}).get("conditions") or []:
        if found.get("type") == kind and found.get("status") == "True":
            return found
    return None


def has_succeeded(job: Mapping[str, Any]) -> bool | None:
    """Whether the job has succeeded; ``None`` while it has not ended."""
    if condition(job, "Complete"):
        return True
    return False if condition(job, "Failed") else None


def state_of(job: Mapping[str, Any]) -> str:
    """One word or two for the log."""
    for kind in ("Complete", "Failed"):
        if condition(job, kind):
            return kind.lower()
    if condition(job, "Suspended") or job.get("spec", {}).get("suspend"):
        return "suspended: it waits for its queue's quota"
    # Nodes that have ended count as succeeded for the seconds until the job is complete.
    begun = [
        int(entry.get(word) or 0)
        for entry in (job.get("status") or {}).get("jobsStatus") or []
        for word in ("active", "succeeded")
    ]
    return "running" if any(begun) else "starting"


def _terminated(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    for entry in pod.get("status", {}).get("containerStatuses") or []:
        if entry.get("name") == CONTAINER:
            return (entry.get("state") or {}).get("terminated") or {}
    return {}


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether a pod's training container has ended, or the pod was taken away."""
    return bool(_terminated(pod)) or pod.get("status", {}).get("phase") == "Failed"


def exit_code(pod: Mapping[str, Any]) -> int | None:
    """Of a pod's training container; ``None`` while it runs, and where Kubernetes has not said."""
    return _terminated(pod).get("exitCode")


def out_of_memory(pod: Mapping[str, Any]) -> bool:
    """Whether the kernel killed something in a pod's training container.

    That is a worker more often than the container's first process, which then leaves with an exit code of its
    own and can only say that its worker is gone.
    """
    return _terminated(pod).get("reason") == "OOMKilled"


def describe(pod: Mapping[str, Any], reason: str) -> str:
    """A pod's end in words: its own last message where it left one that tells, else what Kubernetes says."""
    message = "" if out_of_memory(pod) else " ".join(str(_terminated(pod).get("message") or "").split())
    name = pod["metadata"]["name"]
    index = (pod["metadata"].get("annotations") or {}).get(NODE_INDEX)
    return f"{f'node {index} (pod {name})' if index else f'pod {name}'}: {message or reason}"


def first_node(pods: list[dict[str, Any]]) -> str | None:
    """The newest pod of node 0 whose container has started."""
    started = [
        pod
        for pod in pods
        if (pod["metadata"].get("annotations") or {}).get(NODE_INDEX, "0") == "0"
        and pod.get("status", {}).get("phase") in ("Running", "Succeeded", "Failed")
    ]
    newest = max(started, key=lambda pod: pod["metadata"].get("creationTimestamp") or "", default=None)
    return newest["metadata"]["name"] if newest else None


def seconds_since(stamp: str) -> int | None:
    """Whole seconds since a time stamp of a log, rounded up; lines seen twice are known by their stamps."""
    if not stamp:
        return None
    then = datetime.fromisoformat(f"{stamp[:19]}+00:00").timestamp()
    return max(int(time.time() - then) + 2, 1)


def refusal(error: Any) -> str:
    """What the API server said when it would not make a job, and the cure; ``error``: ``ApiException``."""
    try:
        message = json.loads(error.body)["message"]
    except (ValueError, TypeError, KeyError):
        message = str(error.reason)
    cures = {
        403: "; apply manifests/trainer: the steps' role and the runtime",
        404: "; gpu_nodes above 1 needs Kubeflow Trainer 2.2 or later in the cluster",
    }
    return f"Kubernetes refuses the TrainJob (HTTP {error.status}): {message}{cures.get(error.status, '')}"
