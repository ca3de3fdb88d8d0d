"""What the acceptance of an installation needs of ``kubectl``: pods of a run, nodes, a deletion."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GPU = "nvidia.com/gpu"
TIMEOUT_S = 60


@dataclass(frozen=True)
class Pod:
    """A pod of a step.

    Attributes:
        name: of the pod; Argo may give it again to the pod that takes a lost one's place.
        step: from its label.
        phase: ``Pending``, ``Running``, ``Succeeded`` or ``Failed``.
        gpus: limit of accelerators of its main container; ``None`` where it has none.
        running: whether its main container runs now.
        uid: Kubernetes' own identity of the pod, never given again.
    """

    name: str
    step: str
    phase: str
    gpus: str | None
    running: bool
    uid: str = ""


class Kubectl:
    """``kubectl`` with the current context.

    Args:
        namespace: of the steps' pods.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    @staticmethod
    def problem() -> str:
        """Why ``kubectl`` cannot be used here; empty where it can."""
        if shutil.which("kubectl") is None:
            return "kubectl is not on the PATH"
        done = _run("get", "nodes", "-o", "name")
        return "" if done.returncode == 0 else f"kubectl reaches no cluster ({_line(done.stderr)})"

    def pods(self, run_id: str) -> list[Pod]:
        """The pods of a run's steps, oldest first."""
        found = self._json("get", "pods", "-n", self.namespace, "-l", f"pipeline/runid={run_id}")
        items = sorted(found.get("items", []), key=lambda pod: pod["metadata"].get("creationTimestamp", ""))
        return [_pod(item) for item in items if "latentrec/step" in item["metadata"].get("labels", {})]

    def delete_pod(self, name: str) -> bool:
        """Delete a pod at once, as a node that is lost would; whether it was there."""
        done = _run(
            "delete", "pod", "-n", self.namespace, name, "--grace-period=0", "--force", "--wait=false"
        )
        return done.returncode == 0

    def workflow_messages(self, run_id: str) -> list[str]:
        """What Argo says of the pods of a run, where it says anything."""
        found = self._json(
            "get", "workflows.argoproj.io", "-n", self.namespace, "-l", f"pipeline/runid={run_id}"
        )
        nodes = [
            node
            for item in found.get("items", [])
            for node in (item.get("status", {}).get("nodes") or {}).values()
        ]
        return [node["message"] for node in nodes if node.get("message")]

    def accelerators(self) -> int:
        """Accelerators that the cluster's nodes have together."""
        nodes = self._json("get", "nodes").get("items", [])
        return sum(int(node["status"].get("allocatable", {}).get(GPU, 0)) for node in nodes)

    def version(self) -> str:
        """Version of the API server."""
        return str(self._json("version").get("serverVersion", {}).get("gitVersion", "unknown"))

    def _json(self, *arguments: str) -> dict[str, Any]:
        done = _run(*arguments, "-o", "json")
        try:
            found = json.loads(done.stdout) if done.returncode == 0 else {}
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _pod(item: Mapping[str, Any]) -> Pod:
    metadata, status = item["metadata"], item.get("status", {})
    main: Mapping[str, Any] = next((c for c in item["spec"]["containers"] if c.get("name") == "main"), {})
    states = [c for c in status.get("containerStatuses", []) if c.get("name") == "main"]
    return Pod(
        name=metadata["name"],
        step=metadata["labels"]["latentrec/step"],
        phase=status.get("phase", ""),
        gpus=main.get("resources", {}).get("limits", {}).get(GPU),
        uid=metadata.get("uid", ""),
        running=bool(states and "running" in states[0].get("state", {})),
    )


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["kubectl", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", "no answer")


def _line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"
