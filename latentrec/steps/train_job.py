"""The TrainJob of a step that trains on several nodes, made from the step's own pod.

Kubeflow Trainer (``trainer.kubeflow.org/v1alpha1``, 2.2 or later) starts one pod a node, tells torchrun who
belongs together (``PET_*``), and starts all of them again when one is lost. The pods run the step's image
with the step's environment; nodes and sizes are those that preflight chose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from latentrec.core.settings import GPUS_VARIABLE, MAX_RESTARTS_VARIABLE, PROCESSES_VARIABLE
from latentrec.steps.pods import POD_VARIABLE, STEP_LABEL
from latentrec.steps.status import KFP_ATTEMPT_VARIABLE

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RUNTIME = "latentrec-torch"
"""ClusterTrainingRuntime of ``manifests/trainer``."""
CONTAINER = "node"
"""Name of the training container (and of the replicated job) in every runtime of Trainer."""
RUN_LABEL = "latentrec/run"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MANAGER = "latentrec/step"
"""Owner of our patches of the runtime."""
PODS_OF_JOB = "jobset.sigs.k8s.io/jobset-name"
NODE_INDEX = "batch.kubernetes.io/job-completion-index"
_ATTEMPT_FIELD = "metadata.labels['jobset.sigs.k8s.io/restart-attempt']"
_NOT_PASSED_ON = ("ARGO_", "KFP_", "KUBERNETES_", "PET_")
_OF_THE_POD = {MAX_RESTARTS_VARIABLE, GPUS_VARIABLE, PROCESSES_VARIABLE}


@dataclass(frozen=True)
class Nodes:
    """Where a training step runs when one pod is not enough.

    Attributes:
        count: nodes, one pod each; 1 is the step's own pod.
        gpus: accelerators a pod.
        cpu, memory: of a pod, in Kubernetes notation.
        node_selector: labels that a node must have.
        tolerations: taints that the pods tolerate.
        queue: Kueue's LocalQueue; empty for none.
    """

    count: int = 1
    gpus: int = 0
    cpu: str = ""
    memory: str = ""
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    queue: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def job_name(run_id: str, step: str, arguments: Sequence[str]) -> str:
    """Name of a step's TrainJob: the same in every attempt of the step, another one in every other run."""
    digest = hashlib.sha256(json.dumps([run_id, step, *arguments]).encode()).hexdigest()[:10]
    return f"latentrec-{step.replace('_', '-')[:24].strip('-')}-{digest}"


def train_job(
    name: str,
    nodes: Nodes,
    pod: Mapping[str, Any],
    *,
    command: Sequence[str],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    run_id: str,
) -> dict[str, Any]:
    """The object to create.

    Args:
        name: of :func:`job_name`.
        nodes: how many, and what each has.
        pod: the step's own pod as the API server returns it: image, environment, account and owner.
        command, arguments: of the training container; a ``$`` in them stays one.
        environment: the step's environment; replaces references to fields of its own pod.
        run_id: of the pipeline run; the run summary finds abandoned jobs by it.
    """
    main = main_container(pod)
    spec, metadata = pod.get("spec", {}), pod.get("metadata", {})
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key.startswith("latentrec/")}
    labels |= {"app.kubernetes.io/part-of": "latentrec", RUN_LABEL: run_id[:63]}
    if nodes.queue:
        labels[QUEUE_LABEL] = nodes.queue
    limits = {"cpu": nodes.cpu, "memory": nodes.memory}
    if nodes.gpus:
        limits["nvidia.com/gpu"] = str(nodes.gpus)
    placed = {
        "serviceAccountName": spec.get("serviceAccountName"),
        "imagePullSecrets": spec.get("imagePullSecrets"),
        "nodeSelector": nodes.node_selector,
        "tolerations": nodes.tolerations,
    }
    pod_labels = {key: value for key, value in labels.items() if key not in (STEP_LABEL, QUEUE_LABEL)}
    template = {"metadata": {"labels": pod_labels}, "spec": {k: v for k, v in placed.items() if v}}
    replicated = {"name": CONTAINER, "template": {"spec": {"template": template}}}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "labels": labels,
            "ownerReferences": [
                {**owner, "controller": False, "blockOwnerDeletion": False}
                for owner in metadata.get("ownerReferences") or []
            ],
        },
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "trainer": {
                "image": main["image"],
                "command": [_literal(part) for part in command],
                "args": [_literal(part) for part in arguments],
                "env": _environment(main, environment, nodes.gpus),
                "numNodes": nodes.count,
                "numProcPerNode": max(nodes.gpus, 1),
                "resourcesPerNode": {"limits": limits, "requests": limits},
            },
            "runtimePatches": [
                {
                    "manager": MANAGER,
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [replicated]}}},
                }
            ],
        },
    }


def main_container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container of a KFP step that runs the step itself."""
    return next(one for one in pod["spec"]["containers"] if one["name"] == "main")


def _environment(main: Mapping[str, Any], environment: Mapping[str, str], gpus: int) -> list[dict[str, Any]]:
    """What the step was given: Secrets and ConfigMaps as references, fields of its pod as their values."""
    passed: list[dict[str, Any]] = []
    for entry in main.get("env") or []:
        name = entry["name"]
        if name.startswith(_NOT_PASSED_ON) or name in _OF_THE_POD:
            continue
        source = entry.get("valueFrom") or {}
        if "configMapKeyRef" in source or "secretKeyRef" in source:
            passed.append({"name": name, "valueFrom": source})
        elif name in environment:
            passed.append({"name": name, "value": _literal(environment[name])})
    of_each = {POD_VARIABLE: "metadata.name", KFP_ATTEMPT_VARIABLE: _ATTEMPT_FIELD}
    passed += [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in of_each.items()
    ]
    return [*passed, {"name": GPUS_VARIABLE, "value": str(gpus)}]


def _literal(text: str) -> str:
    """Kubernetes puts variables in place of ``$(NAME)``; ``$$`` is how a ``$`` is written."""
    return text.replace("$", "$$")
