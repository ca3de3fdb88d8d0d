"""A compiled pipeline as KFP reads it: two documents, DAGs within DAGs, components, executors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

STEP_LABEL = "latentrec/step"


@dataclass(frozen=True)
class Component:
    """A component of the pipeline: a DAG, or a container."""

    name: str
    spec: dict[str, Any]

    @property
    def label(self) -> str | None:
        """Label of its executor; ``None`` for a DAG."""
        return self.spec.get("executorLabel")

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """The tasks of a DAG."""
        return self.spec.get("dag", {}).get("tasks", {})

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """Where the output artifacts of a DAG come from: name → selectors of its tasks' outputs."""
        return self.spec.get("dag", {}).get("outputs", {}).get("artifacts", {})

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Definitions of its input parameters."""
        return self.spec.get("inputDefinitions", {}).get("parameters", {})

    @property
    def output_artifacts(self) -> dict[str, dict[str, Any]]:
        """Definitions of its output artifacts."""
        return self.spec.get("outputDefinitions", {}).get("artifacts", {})

    @property
    def output_parameters(self) -> dict[str, dict[str, Any]]:
        """Definitions of its output parameters."""
        return self.spec.get("outputDefinitions", {}).get("parameters", {})


class Pipeline:
    """A compiled pipeline.

    Args:
        path: the YAML file.
    """

    def __init__(self, path: Path) -> None:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        self.spec: dict[str, Any] = documents[0]
        platform = documents[1]["platforms"]["kubernetes"] if len(documents) > 1 else {}
        self.platform: dict[str, Any] = platform.get("deploymentSpec", {}).get("executors", {})
        self.name: str = self.spec["pipelineInfo"]["name"]

    @property
    def root(self) -> Component:
        """The outermost DAG."""
        return Component("root", self.spec["root"])

    def component_of(self, task: dict[str, Any]) -> Component:
        """The component that a task runs."""
        name = task["componentRef"]["name"]
        return Component(name, self.spec["components"][name])

    def container(self, label: str) -> dict[str, Any]:
        """The container of an executor."""
        return self.spec["deploymentSpec"]["executors"][label]["container"]

    def pod_settings(self, label: str) -> dict[str, Any]:
        """What the platform's document says of an executor's pod."""
        return self.platform.get(label, {})

    def step_of(self, label: str) -> str:
        """Name of the step, from the pod's label."""
        labels = self.pod_settings(label).get("podMetadata", {}).get("labels", {})
        return labels.get(STEP_LABEL, label)

    def steps(self) -> Iterator[str]:
        """Names of all steps."""
        for label in self.spec["deploymentSpec"]["executors"]:
            yield self.step_of(label)
