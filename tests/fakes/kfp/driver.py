"""KFP's driver: resolves a task's inputs, evaluates conditions, asks the cache, and makes the pod's spec."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.kfp.compiled import Component, Pipeline

PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_SELECTOR = re.compile(r'parseJson\(string_value\)\["([^"]+)"\]')
SCHEDULE_TIME = "{{$.pipeline_job_schedule_time_utc}}"
_CONDITION = re.compile(
    r"^inputs\.parameter_values\['([^']+)'\] (==|!=) (?:inputs\.parameter_values\['([^']+)'\]|'([^']*)')$"
)
PLUGIN_VARIABLES = {
    "MLFLOW_RUN_ID": "nested-run",
    "MLFLOW_TRACKING_URI": "http://mlflow.plugin:5000",
    "MLFLOW_EXPERIMENT_ID": "2",
}


@dataclass(frozen=True)
class Installation:
    """What a KFP installation adds to a pipeline.

    Attributes:
        config_maps: data of the ConfigMaps, by name.
        secrets: data of the Secrets, by name.
        mlflow_plugin: whether KFP's MLflow plugin injects its variables.
        schedule_time: of a recurring run.
    """

    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    mlflow_plugin: bool = False
    schedule_time: str = "2026-11-27T13:56:00Z"


@dataclass
class Inputs:
    """What a task or a DAG is given: parameters by name, artifacts (with an id) by name.

    What a loop's passes have made of one name comes as a list, in the order of the passes.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Any] = field(default_factory=dict)

    def listed(self, name: str) -> list[dict[str, Any]]:
        """The artifacts of one name."""
        found = self.artifacts[name]
        return found if isinstance(found, list) else [found]


@dataclass(frozen=True)
class PodSpec:
    """The pod of a step as the API server gets it.

    Attributes:
        step: name of the step.
        labels: of the pod.
        image: of the main container.
        limits: resources of the main container.
        node_selector: labels that a node must have.
        tolerations: of the pod.
        deadline_s: seconds after its start on a node when it is stopped.
        variables: what the process sees.
        refused: why Kubernetes does not take the pod; empty where it does.
        executor_input: what the launcher hands to the component.
    """

    step: str
    labels: Mapping[str, str]
    image: str
    limits: Mapping[str, str]
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    deadline_s: float | None
    variables: Mapping[str, str]
    refused: str
    executor_input: Mapping[str, Any]


def resolve(pipeline: Pipeline, task: Mapping[str, Any], dag: Inputs, produced: Mapping[str, Any]) -> Inputs:
    """The inputs of a task.

    Args:
        pipeline: the compiled pipeline.
        task: as it stands in its DAG.
        dag: what the DAG was given.
        produced: outputs of the DAG's tasks by name: ``{"parameters": …, "artifacts": …}``.
    """
    found = Inputs()
    constants: dict[str, Any] = {}
    component = pipeline.component_of(dict(task))
    for name, definition in component.parameters.items():
        if "defaultValue" in definition:
            found.parameters[name] = definition["defaultValue"]
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        if "componentInputParameter" in source:
            value = dag.parameters.get(source["componentInputParameter"])
            found.parameters[name] = _selected(value, source.get("parameterExpressionSelector"))
        elif "taskOutputParameter" in source:
            made = source["taskOutputParameter"]
            found.parameters[name] = produced[made["producerTask"]]["parameters"][made["outputParameterKey"]]
        elif "taskFinalStatus" in source:
            found.parameters[name] = produced[source["taskFinalStatus"]["producerTask"]]["status"]
        else:
            constants[name] = source["runtimeValue"]["constant"]
    found.parameters |= {name: _filled(value, found.parameters) for name, value in constants.items()}
    for name, source in task.get("inputs", {}).get("artifacts", {}).items():
        if "componentInputArtifact" in source:
            found.artifacts[name] = dag.artifacts[source["componentInputArtifact"]]
        else:
            made = source["taskOutputArtifact"]
            found.artifacts[name] = produced[made["producerTask"]]["artifacts"][made["outputArtifactKey"]]
    return found


def _selected(value: Any, selector: str | None) -> Any:
    """A field of a structured value, such as a loop's item."""
    if selector is None:
        return value
    named = _SELECTOR.fullmatch(selector)
    assert named, f"a selector that this driver cannot read: {selector}"
    return (json.loads(value) if isinstance(value, str) else value)[named[1]]


def _filled(constant: Any, parameters: Mapping[str, Any]) -> Any:
    """A constant with the values of the parameters that it names; what is no text as JSON writes it."""
    if not isinstance(constant, str):
        return constant

    def value(found: re.Match[str]) -> str:
        given = parameters.get(found[1])
        return given if isinstance(given, str) else json.dumps(given)

    return PLACEHOLDER.sub(value, constant)


def items_of(task: Mapping[str, Any], inputs: Inputs) -> list[Inputs] | None:
    """What each pass of a loop is given; ``None`` for a task that is no loop."""
    iterator = task.get("parameterIterator")
    if iterator is None:
        return None
    source = iterator["items"]
    items = json.loads(source["raw"]) if "raw" in source else inputs.parameters[source["inputParameter"]]
    assert isinstance(items, list), f"the items of a loop are {items!r}"
    name = iterator["itemInput"]
    return [Inputs({**inputs.parameters, name: item}, dict(inputs.artifacts)) for item in items]


def condition_holds(task: Mapping[str, Any], inputs: Inputs) -> bool:
    """Whether a task's condition lets it run."""
    text = task.get("triggerPolicy", {}).get("condition")
    if not text:
        return True
    match = _CONDITION.match(text)
    assert match, f"a condition that this driver cannot read: {text}"
    left, operator, other, constant = match.groups()
    right = inputs.parameters[other] if other else constant
    return (inputs.parameters[left] == right) == (operator == "==")


def cache_key(pipeline: Pipeline, component: Component, inputs: Inputs) -> str:
    """Hash of parameter values, artifact ids, image and command; not of content."""
    assert component.label is not None
    container = pipeline.container(component.label)
    return hashlib.sha256(
        json.dumps(
            {
                "parameters": inputs.parameters,
                "artifacts": {
                    name: [entry["name"] for entry in inputs.listed(name)] for name in inputs.artifacts
                },
                "image": container["image"],
                "command": [*container.get("command", []), *container.get("args", [])],
                "outputs": [component.output_artifacts, component.output_parameters],
            },
            sort_keys=True,
        ).encode()
    ).hexdigest()


def make_pod(
    pipeline: Pipeline,
    component: Component,
    inputs: Inputs,
    dag: Inputs,
    run_id: str,
    installation: Installation,
) -> PodSpec:
    """The pod that the driver asks for; the platform's settings name parameters of the DAG."""
    label = component.label
    assert label is not None
    container, settings = pipeline.container(label), pipeline.pod_settings(label)
    labels = {**settings.get("podMetadata", {}).get("labels", {}), "pipeline/runid": run_id}
    variables, refused = _environment(container, settings, labels, installation)
    return PodSpec(
        step=pipeline.step_of(label),
        labels=labels,
        image=container["image"],
        limits=_limits(container.get("resources", {}), inputs),
        node_selector=_json(settings.get("nodeSelector", {}).get("nodeSelectorJson"), dag) or {},
        tolerations=tuple(
            toleration
            for entry in settings.get("tolerations", [])
            for toleration in _json(entry.get("tolerationJson"), dag) or []
        ),
        deadline_s=float(settings["activeDeadlineSeconds"]) if "activeDeadlineSeconds" in settings else None,
        variables=variables,
        refused=refused,
        executor_input=launcher_input(component, inputs, run_id),
    )


def launcher_input(component: Component, inputs: Inputs, run_id: str) -> dict[str, Any]:
    """What the launcher hands to the component: an artifact of another task has no schema title."""
    artifacts = {
        name: {"artifacts": [{**entry, "type": {"instanceSchema": ""}} for entry in inputs.listed(name)]}
        for name in inputs.artifacts
    }
    root = f"minio://mlpipeline/v2/artifacts/{run_id}/{component.name}"
    made = {
        name: {"artifacts": [{"name": name, "type": spec["artifactType"], "uri": f"{root}/{name}"}]}
        for name, spec in component.output_artifacts.items()
    }
    return {
        "inputs": {"artifacts": artifacts, "parameterValues": dict(inputs.parameters)},
        "outputs": {"artifacts": made, "outputFile": f"/tmp/kfp_outputs/{component.name}.json"},
    }


def _limits(resources: Mapping[str, Any], inputs: Inputs) -> dict[str, str]:
    """A placeholder that names a text gives a limit; one that names a number gives none, without a word."""

    def value(text: Any) -> str:
        named = PLACEHOLDER.fullmatch(str(text))
        if named is None:
            return str(text)
        found = inputs.parameters.get(named[1])
        return found if isinstance(found, str) else ""

    accelerator = resources.get("accelerator", {})
    asked = {
        "cpu": value(resources.get("resourceCpuLimit", "")),
        "memory": value(resources.get("resourceMemoryLimit", "")),
        str(accelerator.get("resourceType", "")): value(accelerator.get("resourceCount", "")),
    }
    return {name: limit for name, limit in asked.items() if name and limit}


def _json(source: Mapping[str, Any] | None, dag: Inputs) -> Any:
    return None if source is None else dag.parameters.get(source["componentInputParameter"])


def _environment(
    container: Mapping[str, Any],
    settings: Mapping[str, Any],
    labels: Mapping[str, str],
    installation: Installation,
) -> tuple[dict[str, str], str]:
    """What the process sees, and why Kubernetes refuses the pod where a variable has value and source."""
    values = {entry["name"]: entry["value"] for entry in container.get("env", [])}
    if installation.mlflow_plugin:
        values |= PLUGIN_VARIABLES
    sources: dict[str, str | None] = {}
    for kind, data, name_key in (
        ("configMapAsEnv", installation.config_maps, "configMapName"),
        ("secretAsEnv", installation.secrets, "secretName"),
    ):
        for source in settings.get(kind, []):
            for entry in source["keyToEnv"]:
                key = entry.get("configMapKey") or entry.get("secretKey")
                sources[entry["envVar"]] = data.get(source[name_key], {}).get(key)
                assert source.get("optional"), f"{source[name_key]} may be absent on an installation"
    for entry in settings.get("fieldPathAsEnv", []):
        label = re.fullmatch(r"metadata\.labels\['([^']+)'\]", entry["fieldPath"])
        sources[entry["name"]] = labels.get(label[1]) if label else None
    clash = sorted(set(values) & set(sources))
    refused = f"{clash[0]}: valueFrom may not be specified when value is not empty" if clash else ""
    return values | {name: value for name, value in sources.items() if value is not None}, refused
