"""The command line of a Deployment, with ``$(NAME)`` filled in from its variables, as the kubelet does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"


def base_mlflow() -> dict[str, Any]:
    """MLflow's Deployment as it stands in the base; no kubectl is needed to read it."""
    documents = yaml.safe_load_all((MANIFESTS / "base/mlflow.yaml").read_text(encoding="utf-8"))
    return next(entry for entry in documents if entry["kind"] == "Deployment")


def command_line(deployment: dict[str, Any], given: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Command with arguments, and the variables, of a Deployment's container.

    Args:
        deployment: the object.
        given: values of the variables that come from Secrets and ConfigMaps, by name.
    """
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables: dict[str, str] = {}
    for entry in container["env"]:
        value = entry["value"] if "value" in entry else given[entry["name"]]
        variables[entry["name"]] = _expanded(value, variables)
    words = [*container["command"], *container["args"]]
    return [_expanded(word, variables) for word in words], variables


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$\(([A-Za-z_]\w*)\)", lambda found: variables.get(found[1], found[0]), text)
