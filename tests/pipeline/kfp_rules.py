"""What KFP's driver, launcher and Argo were seen to do with a compiled pipeline, as rules on its YAML.

KFP's local runner does none of this: a pipeline may run there and be refused, or run without its GPU, on a
cluster. Each rule returns one line a fault.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from kfp.dsl import executor

PLUGIN_VARIABLES = frozenset(
    {"MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE"}
)
"""Variables that KFP's MLflow plugin sets with values in every pod."""

_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")


class CompiledPipeline:
    """A compiled pipeline, and where the inputs of each of its containers come from.

    Attributes:
        spec: the pipeline's own document.
        pods: the platform's part, by executor label.
        tasks: executor label → (task name, task, type of each parameter it is given).
    """

    def __init__(self, path: Path) -> None:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        self.spec: dict[str, Any] = documents[0]
        kubernetes = documents[1]["platforms"]["kubernetes"] if len(documents) > 1 else {}
        self.pods: dict[str, Any] = kubernetes.get("deploymentSpec", {}).get("executors", {})
        self.tasks: dict[str, tuple[str, dict, dict[str, str]]] = {}
        self._walk(self.spec["root"])

    @property
    def components(self) -> dict[str, Any]:
        """Every component by name."""
        return self.spec["components"]

    def container(self, label: str) -> dict[str, Any]:
        """The container of an executor."""
        return self.spec["deploymentSpec"]["executors"][label]["container"]

    def component_of(self, label: str) -> dict[str, Any]:
        """The component that an executor runs."""
        return next(c for c in self.components.values() if c.get("executorLabel") == label)

    def _walk(self, component: dict[str, Any]) -> None:
        own = component.get("inputDefinitions", {}).get("parameters", {})
        for name, task in component["dag"]["tasks"].items():
            child = self.components[task["componentRef"]["name"]]
            if "dag" in child:
                self._walk(child)
                continue
            given = task.get("inputs", {}).get("parameters", {})
            kinds = {key: self._kind(source, own, component) for key, source in given.items()}
            self.tasks[child["executorLabel"]] = (name, task, kinds)

    def _kind(self, source: dict, own: dict, component: dict) -> str:
        if "componentInputParameter" in source:
            return own[source["componentInputParameter"]]["parameterType"]
        if "taskOutputParameter" in source:
            made = source["taskOutputParameter"]
            producer = component["dag"]["tasks"][made["producerTask"]]["componentRef"]["name"]
            outputs = self.components[producer]["outputDefinitions"]["parameters"]
            return outputs[made["outputParameterKey"]]["parameterType"]
        constant = source.get("runtimeValue", {}).get("constant")
        return "STRING" if isinstance(constant, str) else type(constant).__name__


def python_function(container: dict[str, Any]) -> Callable:
    """The function that KFP embeds in a Python component's command, made as KFP's executor makes it."""
    words = [*container.get("command", []), *container.get("args", [])]
    name = words[words.index("--function_to_execute") + 1]
    source = next(word for word in words if "from kfp import dsl" in word and f"def {name}" in word)
    namespace: dict[str, Any] = {"__name__": "ephemeral_component"}
    exec(compile(source, name, "exec", dont_inherit=True), namespace)  # our own compiled component
    return namespace[name]


def launcher_input(component: dict[str, Any], folder: str) -> dict[str, Any]:
    """A component's input as KFP's launcher hands it over, with every artifact there.

    An artifact that another task has made carries no schema title (the local runner hands one over); one
    that comes in from an outer DAG has no type at all.
    """
    inputs, outputs = component.get("inputDefinitions", {}), component.get("outputDefinitions", {})
    artifacts = {}
    for index, key in enumerate(inputs.get("artifacts", {})):
        artifact = {"name": "7", "uri": f"minio://bucket/{key}", "metadata": {"display_name": key}}
        if index % 2:
            artifact["type"] = {"instanceSchema": ""}
        artifacts[key] = {"artifacts": [artifact]}
    made = {
        key: {"artifacts": [{"name": key, "type": spec["artifactType"], "uri": f"{folder}/{key}"}]}
        for key, spec in outputs.get("artifacts", {}).items()
    }
    return {
        "inputs": {"artifacts": artifacts, "parameterValues": {}},
        "outputs": {"artifacts": made, "outputFile": f"{folder}/output.json"},
    }


def executors_that_cannot_start(pipeline: CompiledPipeline) -> Iterator[str]:
    """KFP's executor builds every artifact from its annotation before the function's first line."""
    for label, (name, _, _) in pipeline.tasks.items():
        function = python_function(pipeline.container(label))
        with tempfile.TemporaryDirectory() as folder:
            given = launcher_input(pipeline.component_of(label), folder)
            try:
                executor.Executor(executor_input=given, function_to_execute=function)
            except Exception as error:
                yield f"{name}: {type(error).__name__}: {error}"


def limits_that_are_left_out(pipeline: CompiledPipeline) -> Iterator[str]:
    """The driver leaves a limit out, without a word, where its placeholder names no STRING parameter."""
    for label, (name, _, kinds) in pipeline.tasks.items():
        for field, value in _leaves(pipeline.container(label).get("resources", {})):
            for parameter in _PLACEHOLDER.findall(str(value)):
                if kinds.get(parameter) != "STRING":
                    yield f"{name}: {field} reads {parameter}, which is {kinds.get(parameter)}"


def retries_that_end_too_early(pipeline: CompiledPipeline) -> Iterator[str]:
    """Back-off's maximum counts from the first attempt's start, not from the failure."""
    for label, (name, task, _) in pipeline.tasks.items():
        policy = task.get("retryPolicy")
        if policy and policy.get("maxRetryCount"):
            timeout = float(pipeline.pods[label]["activeDeadlineSeconds"])
            needed = timeout * (int(policy["maxRetryCount"]) + 1)
            covered = float(policy.get("backoffMaxDuration", "0s").rstrip("s"))
            if covered < needed:
                yield f"{name}: backoffMaxDuration is {covered:.0f} s, the attempts may take {needed:.0f} s"


def variables_that_clash(pipeline: CompiledPipeline) -> Iterator[str]:
    """Kubernetes refuses a variable that has a value from the MLflow plugin and a source from us."""
    for label, (name, _, _) in pipeline.tasks.items():
        pod = pipeline.pods.get(label, {})
        for source in (*pod.get("configMapAsEnv", []), *pod.get("secretAsEnv", [])):
            for entry in source.get("keyToEnv", []):
                if entry["envVar"] in PLUGIN_VARIABLES:
                    yield f"{name}: {entry['envVar']} has a source, and KFP's plugin gives it a value"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}".strip("."))
    else:
        yield path, value


RULES = (
    executors_that_cannot_start,
    limits_that_are_left_out,
    retries_that_end_too_early,
    variables_that_clash,
)
