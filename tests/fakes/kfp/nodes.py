"""Which node of a cluster takes a pod: labels, taints and sizes, as Kubernetes' scheduler compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from latentrec.steps.step_sizes import quantity
from tests.fakes.kfp.driver import PodSpec

GPU = "nvidia.com/gpu"
GPU_TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}


@dataclass(frozen=True)
class Node:
    """A kind of node that the cluster has or can make.

    Attributes:
        cpus: that pods can have.
        memory_gib: that pods can have.
        gpus: accelerators.
        labels: of the node.
        taints: of the node.
    """

    cpus: float
    memory_gib: float
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()


def why_unschedulable(pod: PodSpec, nodes: Sequence[Node]) -> str:
    """Why no node takes the pod; empty where one does, or where no nodes are given."""
    if not nodes:
        return ""
    reasons = [_why_not(pod, node) for node in nodes]
    return "" if "" in reasons else f"0/{len(nodes)} nodes are available: {', '.join(sorted(set(reasons)))}"


def _why_not(pod: PodSpec, node: Node) -> str:
    if any(node.labels.get(key) != value for key, value in pod.node_selector.items()):
        return "node(s) didn't match Pod's node affinity/selector"
    for taint in node.taints:
        if not any(_tolerates(toleration, taint) for toleration in pod.tolerations):
            return "node(s) had untolerated taint"
    for name, there in (("cpu", node.cpus), ("memory", node.memory_gib * 2**30), (GPU, float(node.gpus))):
        if name in pod.limits and quantity(name, pod.limits[name]) > there:
            return f"Insufficient {name}"
    return ""


def _tolerates(toleration: Mapping[str, str], taint: Mapping[str, str]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return (toleration.get("key"), toleration.get("value")) == (taint["key"], taint.get("value"))
