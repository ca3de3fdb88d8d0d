"""Which nodes a run's GPU steps go to, from a few parameters: labels and tolerations of GKE's pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentrec.core import UserError
from latentrec.core.config_values import suggestion

ACCELERATOR_LABEL = "cloud.google.com/gke-accelerator"
SPOT_LABEL = "cloud.google.com/gke-spot"
MACHINE_LABEL = "node.kubernetes.io/instance-type"
GPU_MEMORY_GB = {
    "nvidia-tesla-t4": 16,
    "nvidia-l4": 24,
    "nvidia-tesla-a100": 40,
    "nvidia-a100-80gb": 80,
    "nvidia-h100-80gb": 80,
    "nvidia-h100-mega-80gb": 80,
    "nvidia-h200-141gb": 141,
    "nvidia-rtx-pro-6000": 96,
    "nvidia-b200": 180,
    "nvidia-gb200": 186,
}
"""Memory of GKE's accelerator types that torch can use, GB."""
GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
SPOT_TOLERATION = {"key": SPOT_LABEL, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
_TOLERATION_FIELDS = {"key", "operator", "value", "effect", "tolerationSeconds"}
_TOLERATION_WORDS = {
    "operator": ("Exists", "Equal"),
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
}


@dataclass(frozen=True)
class Pool:
    """Where pods go.

    Attributes:
        node_selector: labels that a node must have; empty for any node.
        tolerations: taints of nodes that the pods may go to, as KFP takes them.
        one_gpu: accelerators of a step that can use no more than one: 0 or 1, as text: KFP leaves out the
            limit of a resource whose value is a number.
    """

    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    one_gpu: str = "0"


MOST_GPUS = 8
"""Accelerators of a pod, between which trainers share the work (through torchrun)."""


def choose_pool(parameters: Mapping[str, Any]) -> Pool:
    """The pool of a run's GPU steps.

    Args:
        parameters: ``system``, ``gpu_count``, ``gpu_type``, ``gpu_spot``, ``gpu_node_selector``,
            ``gpu_tolerations`` and ``gpu_machine_type`` of the pipeline; each may be absent.

    Raises:
        UserError: naming the parameter that is wrong.
    """
    count = device_count(parameters)
    spot = str(parameters.get("gpu_spot", "")).lower() in ("true", "1")
    selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    own_selector = _selector(parameters.get("gpu_node_selector") or {})
    if count:
        kind = str(parameters.get("gpu_type") or "")
        selector[ACCELERATOR_LABEL] = kind
        tolerations.append(GPU_TOLERATION)
        if not own_selector:
            _check_gpu_type(kind, count)
        if parameters.get("gpu_machine_type"):
            selector[MACHINE_LABEL] = str(parameters["gpu_machine_type"])
    if spot:
        selector[SPOT_LABEL] = "true"
        tolerations.append(SPOT_TOLERATION)
    return Pool(
        own_selector or selector,
        tolerations + _tolerations(parameters.get("gpu_tolerations") or []),
        str(min(count, 1)),
    )


def _check_gpu_type(kind: str, count: int) -> None:
    """A pod that asks for nodes that do not exist would stay pending for ever."""
    if not kind:
        raise UserError(
            f"gpu_type is empty with gpu_count={count}; give a GKE accelerator type like nvidia-l4",
            code="config.missing_value",
        )
    if kind not in GPU_MEMORY_GB:
        cure = f'gpu_node_selector={{"{ACCELERATOR_LABEL}": "…"}} names the nodes of any other accelerator'
        raise UserError(
            f"gpu_type is {kind!r}, no accelerator type known here{suggestion(kind, GPU_MEMORY_GB)}; {cure}",
            code="config.bad_value",
        )


def device_count(parameters: Mapping[str, Any]) -> int:
    """Accelerators of a training pod: ``gpu_count`` as a whole number, whatever KFP made of it.

    Raises:
        UserError: it is not a whole number, or more than a node has.
    """
    count = str(parameters.get("gpu_count") or "0").removesuffix(".0")
    system = str(parameters.get("system", ""))
    if count not in map(str, range(MOST_GPUS + 1)):
        raise UserError(
            f"gpu_count is {count[:40]}, expected 0 to {MOST_GPUS} for {system or 'this pipeline'}",
            code="config.bad_value",
        )
    return int(count)


def _selector(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping) or not all(isinstance(value, str) for value in given.values()):
        raise UserError(
            f'gpu_node_selector is {given!r}, expected a JSON object of texts like {{"pool": "a100"}}',
            code="config.bad_value",
        )
    return dict(given)


def _tolerations(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(entry, Mapping) for entry in given):
        raise UserError(
            f"gpu_tolerations is {given!r}, expected a JSON list of objects", code="cluster.bad_toleration"
        )
    for entry in given:
        unknown = sorted(set(entry) - _TOLERATION_FIELDS)
        if unknown:
            fields = ", ".join(sorted(_TOLERATION_FIELDS))
            raise UserError(
                f"gpu_tolerations has the field {unknown[0]!r}; there are: {fields}",
                code="cluster.bad_toleration",
            )
        for field_name, words in _TOLERATION_WORDS.items():
            if entry.get(field_name, words[0]) not in words:
                raise UserError(
                    f"gpu_tolerations: {field_name} is {entry[field_name]!r}, expected {' or '.join(words)}",
                    code="cluster.bad_toleration",
                )
        if entry.get("operator") == "Exists" and entry.get("value"):
            raise UserError(
                f"gpu_tolerations: Exists takes no value, found {entry['value']!r}",
                code="cluster.bad_toleration",
            )
        if not entry.get("key") and entry.get("operator") != "Exists":
            raise UserError(
                "gpu_tolerations: without a key the operator must be Exists", code="cluster.bad_toleration"
            )
        _check_seconds(entry)
    return [
        {key: int(value) if key == "tolerationSeconds" else value for key, value in entry.items()}
        for entry in given
    ]


def _check_seconds(entry: Mapping[str, Any]) -> None:
    """Kubernetes refuses a pod over what stands here, and KFP then tries that pod again and again."""
    if "tolerationSeconds" not in entry:
        return
    seconds = entry["tolerationSeconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0 or seconds % 1:
        raise UserError(
            f"gpu_tolerations: tolerationSeconds is {seconds!r}, expected a whole number of seconds",
            code="cluster.bad_toleration",
        )
    if entry.get("effect") != "NoExecute":
        raise UserError(
            "gpu_tolerations: tolerationSeconds needs the effect NoExecute (how long a pod stays on a node "
            f"that is tainted while it runs), found {entry.get('effect')!r}",
            code="cluster.bad_toleration",
        )
