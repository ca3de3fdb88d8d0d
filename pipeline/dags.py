"""The pipelines by name: what `make` compiles, runs and submits."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from latentrec.core import UserError
from latentrec.core.config_values import parse_pairs

SYSTEMS = ("latentr3", "lares", "reczero", "recone")


def pipeline_of(system: str) -> Any:
    """The pipeline (a KFP component) of one system.

    Raises:
        UserError: there is no such system.
    """
    if system not in SYSTEMS:
        raise UserError(f"SYSTEM is '{system}'; there are: {', '.join(SYSTEMS)}")
    return getattr(importlib.import_module(f"pipeline.{system}"), system)


def parameter_types(pipeline: Any) -> dict[str, type]:
    """Name and type of every parameter of a pipeline."""
    hints = inspect.get_annotations(pipeline.pipeline_func)
    return {name: kind for name, kind in hints.items() if name != "return"}


def parse_parameters(system: str, text: str) -> dict[str, Any]:
    """Read ``PARAMS='k_core=1 sft_epochs=2'`` against the pipeline's signature.

    Raises:
        UserError: a name is unknown or a value has the wrong type.
    """
    return typed_parameters(system, parse_pairs(text))


def typed_parameters(system: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Convert texts to the types of the pipeline's parameters.

    Raises:
        UserError: a name is unknown or a value has the wrong type.
    """
    types = parameter_types(pipeline_of(system))
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in types:
            raise UserError(f"{system} has no parameter '{name}'; there are: {', '.join(types)}")
        found[name] = _convert(name, types[name], value)
    return found


def _convert(name: str, kind: type, value: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[value.strip().lower()]
        if kind in (dict, list):
            found = json.loads(value)
            if not isinstance(found, kind):
                raise ValueError
            return found
        return kind(value)
    except (KeyError, ValueError):
        expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "JSON")
        raise UserError(f"parameter {name} is {value!r}, expected {expected}") from None
