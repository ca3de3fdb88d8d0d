"""The pipelines by name: what `make` compiles, runs and submits."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from latentrec.core import UserError
from latentrec.core.config_values import parse_json, parse_pairs, read_settings, suggestion
from latentrec.steps.parameters import SHARED, setting_names, split_settings, targets_of

SYSTEMS = ("latentr3", "lares", "reczero", "recone")
BATCH_SCORING = "batch_scoring"
"""The pipeline that trains nothing and has no settings: recommendations of a registered model."""
PIPELINES = (*SYSTEMS, BATCH_SCORING)


def pipeline_of(system: str) -> Any:
    """The pipeline (a KFP component) of one system, or batch scoring.

    Raises:
        UserError: there is no such system.
    """
    if system not in PIPELINES:
        raise UserError(f"SYSTEM is '{system}'{suggestion(system, PIPELINES)}", code="config.unknown_name")
    return getattr(importlib.import_module(f"pipeline.{system}"), system)


def parameter_types(pipeline: Any) -> dict[str, type]:
    """Name and type of every parameter of a pipeline."""
    signature = inspect.signature(pipeline.pipeline_func)
    return {name: one.annotation for name, one in signature.parameters.items()}


def parameter_defaults(pipeline: Any) -> dict[str, Any]:
    """The parameters of a pipeline that need not be given, with their defaults."""
    signature = inspect.signature(pipeline.pipeline_func)
    return {name: one.default for name, one in signature.parameters.items() if one.default is not one.empty}


def parse_parameters(system: str, text: str, settings_file: str = "") -> dict[str, Any]:
    """Read ``PARAMS='data_k_core=1 sft.learning_rate=1e-4'`` and a settings file; the text wins over it.

    Returns:
        The pipeline's parameters that are given, ``settings`` among them where a ``step.field`` is.

    Raises:
        UserError: a name is unknown, is given twice, or a value has the wrong type.
    """
    found = typed_parameters(system, read_settings(settings_file), settings_file) if settings_file else {}
    return merge(found, typed_parameters(system, parse_pairs(text), "PARAMS"))


def typed_parameters(system: str, values: Mapping[str, Any], source: str = "PARAMS") -> dict[str, Any]:
    """Values by name as a pipeline takes them: parameters by their types, every other field in ``settings``.

    A ``step.field`` that a parameter of the pipeline fills becomes that parameter.

    Args:
        system: name of the pipeline.
        values: parameter or ``step.field`` to value, which may be a text.
        source: where they come from, for errors.

    Raises:
        UserError: a name is unknown, is given twice, or a value has the wrong type.
    """
    types = parameter_types(pipeline_of(system))
    has_settings = system in SYSTEMS
    shown = {
        f"{step}.{name}": one
        for one in (types if has_settings else ())
        for step, name in targets_of(one, system)
    }
    found: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, value in values.items():
        key = name if name in types or shown.get(name) in SHARED else shown.get(name, name)
        if key == "settings" and has_settings:
            given = parse_json("settings", value, dict) if isinstance(value, str) else value
            settings |= _by_name(system, given, source)
        elif "." in key and has_settings:
            settings |= _by_name(system, {key: value}, source)
        elif key not in types:
            known = [*types, *(setting_names(system) if has_settings else ())]
            guess = suggestion(name, known) or f"; there are: {', '.join(types)}"
            raise UserError(
                f"{source}: {system} has no parameter '{name}'{guess}", code="config.unknown_name"
            )
        elif key in found:
            raise UserError(f"{source} gives {key} twice, once as {name}", code="config.given_twice")
        else:
            found[key] = _convert(key, types[key], value)
    return {**found, "settings": settings} if settings else found


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of which the second win, setting by setting."""
    settings = {**first.get("settings", {}), **second.get("settings", {})}
    return {**first, **second, **({"settings": settings} if settings else {})}


def _by_name(system: str, settings: Any, source: str) -> dict[str, Any]:
    split = split_settings(system, settings, source)
    return {f"{step}.{name}": value for step, fields in split.items() for name, value in fields.items()}


def _convert(name: str, kind: type, value: Any) -> Any:
    if kind in (dict, list):
        return parse_json(name, value, kind) if isinstance(value, str) else value
    if kind is str:
        return (
            ",".join(map(str, value)) if isinstance(value, list) else str(value if value is not None else "")
        )
    try:
        return TypeAdapter(kind).validate_python(str(value).strip())
    except ValidationError:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise UserError(f"{name} is {value!r}, expected {expected}", code="config.bad_value") from None
