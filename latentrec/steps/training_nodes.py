"""How the pods of distributed training steps are made: one pod as today, or a job of several nodes and a
small pod that follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentrec.core import UserError
from latentrec.steps.node_pools import Pool, device_count
from latentrec.steps.step_sizes import Size
from latentrec.steps.train_job import Nodes

MOST_NODES = 64
FOLLOWER = Size("1", "2Gi")
"""A pod that only follows its TrainJob and copies the model through."""


@dataclass(frozen=True)
class TrainerPod:
    """The step's own pod, of a step whose trainer shares its work.

    Attributes:
        size: CPU and memory.
        gpus: accelerators, as text: KFP leaves out the limit of a resource whose value is a number.
        node_selector: labels that its node must have.
        tolerations: taints that it tolerates.
    """

    size: Size
    gpus: str = "0"
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)


def node_count(parameters: Mapping[str, Any]) -> int:
    """Nodes of a distributed training step: ``gpu_nodes`` as a whole number, whatever KFP made of it.

    Raises:
        UserError: it is none, or more than is sensible.
    """
    count = str(parameters.get("gpu_nodes") or "1").removesuffix(".0")
    system = str(parameters.get("system", ""))
    if count not in map(str, range(1, MOST_NODES + 1)):
        raise UserError(
            f"gpu_nodes is {count[:40]}, expected 1 to {MOST_NODES} for {system or 'this pipeline'}",
            code="config.bad_value",
        )
    return int(count)


def choose_nodes(parameters: Mapping[str, Any], pool: Pool, size: Size, queue: str = "") -> Nodes:
    """What every node of a distributed training step has.

    Args:
        parameters: ``system``, ``gpu_count`` and ``gpu_nodes`` of the pipeline.
        pool: where GPU steps go.
        size: of a training pod.
        queue: Kueue's LocalQueue; empty for none.
    """
    return Nodes(
        count=node_count(parameters),
        gpus=device_count(parameters),
        cpu=size.cpu,
        memory=size.memory,
        node_selector=pool.node_selector,
        tolerations=pool.tolerations,
        queue=queue,
    )


def trainer_pod(nodes: Nodes) -> TrainerPod:
    """The step's own pod: it trains on one node, and follows the job on several."""
    if nodes.count > 1:
        return TrainerPod(FOLLOWER)
    return TrainerPod(
        Size(nodes.cpu, nodes.memory), str(nodes.gpus), dict(nodes.node_selector), list(nodes.tolerations)
    )
