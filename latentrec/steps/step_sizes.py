"""CPU and memory of every step: a profile by name, fitted to the machine that has the run's accelerator.

KFP takes sizes at run time as texts. Preflight decides them once for all steps, so that a laptop's cluster
runs the whole pipeline with ``resources=small``, and no pod waits for ever for a node that cannot exist.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentrec.core import UserError
from latentrec.steps.node_pools import device_count

GIB = 2**30
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": GIB,
    "Ti": 2**40,
}
_QUANTITY = re.compile(r"^(\d+(?:\.\d+)?)(m|[KMGT]i?)?$")


@dataclass(frozen=True)
class Size:
    """Limits of a pod, in Kubernetes notation."""

    cpu: str
    memory: str


PROFILES: dict[str, dict[str, Size]] = {
    "default": {
        "data": Size("4", "16Gi"),
        "train": Size("8", "32Gi"),
        "traces": Size("2", "8Gi"),
        "register": Size("2", "8Gi"),
    },
    "small": {
        "data": Size("1", "3Gi"),
        "train": Size("1", "4Gi"),
        "traces": Size("1", "2Gi"),
        "register": Size("1", "3Gi"),
    },
}
"""Sizes of the steps by the run parameter ``resources``. ``small`` runs on a node of two cores and 8 GiB."""


@dataclass(frozen=True)
class Machine:
    """A machine type, as sold."""

    name: str
    cpus: int
    memory_gib: int

    @property
    def pod_cpus(self) -> float:
        """CPUs that a pod can have: GKE keeps some for the node, and its own pods take half a core."""
        kept = 0.06 + 0.01 + 2 * 0.005 + max(self.cpus - 4, 0) * 0.0025
        return self.cpus - kept - 0.5

    @property
    def pod_memory_gib(self) -> float:
        """GiB that a pod can have: GKE keeps some, an eviction threshold, and 1 GiB for its own pods."""
        kept, left = 0.0, float(self.memory_gib)
        for tier, share in ((4, 0.25), (4, 0.2), (8, 0.1), (112, 0.06)):
            part = min(left, tier)
            kept, left = kept + share * part, left - part
        return self.memory_gib - kept - 0.02 * left - 0.1 - 1.0


def _series(name: str, *sizes: tuple[int, int, int]) -> dict[int, tuple[Machine, ...]]:
    return {count: (Machine(name.format(count), cpus, memory),) for count, cpus, memory in sizes}


MACHINES: dict[str, dict[int, tuple[Machine, ...]]] = {
    "nvidia-l4": {
        1: (
            Machine("g2-standard-8", 8, 32),
            Machine("g2-standard-4", 4, 16),
            Machine("g2-standard-12", 12, 48),
            Machine("g2-standard-16", 16, 64),
            Machine("g2-standard-32", 32, 128),
        ),
        2: (Machine("g2-standard-24", 24, 96),),
        4: (Machine("g2-standard-48", 48, 192),),
        8: (Machine("g2-standard-96", 96, 384),),
    },
    "nvidia-tesla-a100": _series("a2-highgpu-{}g", (1, 12, 85), (2, 24, 170), (4, 48, 340), (8, 96, 680)),
    "nvidia-a100-80gb": _series("a2-ultragpu-{}g", (1, 12, 170), (2, 24, 340), (4, 48, 680), (8, 96, 1360)),
    "nvidia-h100-80gb": _series("a3-highgpu-{}g", (1, 26, 234), (2, 52, 468), (4, 104, 936), (8, 208, 1872)),
    "nvidia-h100-mega-80gb": _series("a3-megagpu-{}g", (8, 208, 1872)),
    "nvidia-h200-141gb": _series("a3-ultragpu-{}g", (8, 224, 2952)),
}
"""GKE's machine types by accelerator type and count; the first of each makes the guide's pool."""


def choose_sizes(parameters: Mapping[str, Any]) -> dict[str, Size]:
    """Sizes of the steps of a run: ``data``, ``train``, ``traces``, ``register``.

    ``train_cpu`` and ``train_memory`` count where they are given; else the profile's size, no larger than the
    machine of ``gpu_machine_type`` (or the guide's own machine for ``gpu_type``) can hold.

    Args:
        parameters: ``resources``, ``train_cpu``, ``train_memory``, ``gpu_count``, ``gpu_type``,
            ``gpu_machine_type`` and ``gpu_node_selector`` of the pipeline; each may be absent.

    Raises:
        UserError: there is no such profile; a quantity is none; a pod fits no machine of the pool.
    """
    name = str(parameters.get("resources") or "default")
    if name not in PROFILES:
        raise UserError(
            f"resources is {name!r}, expected one of: {', '.join(PROFILES)}", code="config.bad_value"
        )
    sizes = dict(PROFILES[name])
    given = {key: str(parameters.get(f"train_{key}") or "") for key in ("cpu", "memory")}
    for key, value in given.items():
        if value:
            quantity(f"train_{key}", value)
    machine = pool_machine(parameters)
    train = sizes["train"]
    if machine is not None:
        whole = int(quantity("train_memory", train.memory) / GIB)
        train = Size(
            str(min(int(float(train.cpu)), max(int(machine.pod_cpus), 1))),
            f"{min(whole, int(machine.pod_memory_gib))}Gi",
        )
    train = Size(given["cpu"] or train.cpu, given["memory"] or train.memory)
    if machine is not None:
        _check_fits(train, machine)
    return sizes | {"train": train}


def pool_machine(parameters: Mapping[str, Any]) -> Machine | None:
    """Machine type of a run's GPU pods: ``gpu_machine_type``, or the guide's for ``gpu_type``.

    Returns:
        ``None`` where it cannot be known: no accelerator, none of GKE's, nodes chosen by other labels.

    Raises:
        UserError: ``gpu_machine_type`` does not have that many accelerators of that type.
    """
    count = device_count(parameters)
    kind, wanted = str(parameters.get("gpu_type") or ""), str(parameters.get("gpu_machine_type") or "")
    if not count or kind not in MACHINES or (parameters.get("gpu_node_selector") and not wanted):
        return None
    # A machine with more accelerators can run the pod too, at the price of those that stay idle.
    suitable = [
        machine for have in sorted(MACHINES[kind]) if have >= count for machine in MACHINES[kind][have]
    ]
    found = [machine for machine in suitable if machine.name == wanted] if wanted else suitable
    if wanted and not found:
        names = ", ".join(machine.name for machine in suitable)
        raise UserError(
            f"gpu_machine_type is {wanted!r}; machines with {count} {kind}: {names or 'none'}",
            code="config.bad_value",
        )
    return found[0] if found else None


def quantity(name: str, value: str) -> float:
    """A quantity in Kubernetes notation as a number of CPUs or bytes.

    Raises:
        UserError: it is not a Kubernetes quantity.
    """
    found = _QUANTITY.match(value)
    if found is None:
        raise UserError(
            f"{name} is {value!r}, expected Kubernetes notation like 8, 500m or 32Gi", code="config.bad_value"
        )
    number, unit = float(found[1]), found[2] or ""
    return number / 1000 if unit == "m" else number * _UNITS[unit]


def _check_fits(train: Size, machine: Machine) -> None:
    cpus, memory = quantity("train_cpu", train.cpu), quantity("train_memory", train.memory) / GIB
    if cpus > machine.pod_cpus or memory > machine.pod_memory_gib:
        raise UserError(
            f"a training pod of {train.cpu} CPU and {train.memory} fits no node of the pool: a pod on "
            f"{machine.name} can have {int(machine.pod_cpus)} CPU and {int(machine.pod_memory_gib)}Gi; lower "
            "train_cpu and train_memory (empty: what fits), or name the pool's gpu_machine_type",
            code="cluster.too_small",
        )
