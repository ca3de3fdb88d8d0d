"""Frozen dataclasses as step configurations: command-line flags, dictionaries and errors from one source.

A configuration is a frozen, keyword-only dataclass whose fields are made with :func:`option`. The same class
gives a command its flags, a component its parameters and a manifest its ``config`` entry.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from latentrec.core.errors import UserError

T = TypeVar("T")
_MISSING = dataclasses.MISSING


def option(default: Any = _MISSING, *, help: str, choices: tuple[Any, ...] | None = None) -> Any:
    """Declare a configuration field: its default, one line of help, and the values allowed (if closed)."""
    metadata = {"help": help, "choices": choices}
    if default is _MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return the configuration as plain JSON values, in field order."""
    return {
        field.name: list(value) if isinstance(value := getattr(config, field.name), tuple) else value
        for field in dataclasses.fields(config)
    }


def config_from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build ``cls`` from JSON values.

    Raises:
        UserError: a name is unknown, a required field is absent, or a value has the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise UserError(f"{cls.__name__} has no field '{unknown[0]}'; it knows: {', '.join(sorted(fields))}")
    absent = [
        name
        for name, field in fields.items()
        if name not in values and field.default is _MISSING and field.default_factory is _MISSING
    ]
    if absent:
        raise UserError(
            f"{cls.__name__} needs a value for '{absent[0]}': {fields[absent[0]].metadata['help']}"
        )
    return cls(**{name: _coerce(cls, fields[name], hints[name], value) for name, value in values.items()})


def add_config_arguments(parser: argparse.ArgumentParser, cls: type) -> None:
    """Give ``parser`` one flag for each field of ``cls``, with its default and meaning in ``--help``.

    Flags carry no default of their own, so that :func:`config_from_namespace` sees only what the user gave.
    """
    hints = typing.get_type_hints(cls)
    group = parser.add_argument_group(cls.__name__)
    for field in dataclasses.fields(cls):
        flag = "--" + field.name.replace("_", "-")
        kind, _ = _scalar_type(hints[field.name])
        text = field.metadata.get("help", "").replace("%", "%%")
        required = field.default is _MISSING and field.default_factory is _MISSING
        text += " (required)" if required else f" (default: {field.default})"
        common: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text}
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        elif typing.get_origin(hints[field.name]) is tuple:
            group.add_argument(flag, nargs="+", metavar="VALUE", **common)
        else:
            choices = field.metadata.get("choices")
            metavar = "{" + ",".join(map(str, choices)) + "}" if choices else kind.__name__.upper()
            group.add_argument(flag, metavar=metavar, **common)


def config_from_namespace(cls: type[T], namespace: argparse.Namespace, **fixed: Any) -> T:
    """Build ``cls`` from parsed flags; ``fixed`` values win. Errors are those of :func:`config_from_dict`."""
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    given = {name: value for name, value in vars(namespace).items() if name in names}
    return config_from_dict(cls, {**given, **fixed})


def _scalar_type(hint: Any) -> tuple[type, bool]:
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return kinds[0], True
    return hint, False


def _coerce(cls: type, field: dataclasses.Field, hint: Any, value: Any) -> Any:
    kind, optional = _scalar_type(hint)
    where = f"{cls.__name__}.{field.name}"
    if typing.get_origin(hint) is tuple:
        items = value.split(",") if isinstance(value, str) else list(value)
        return tuple(_coerce_scalar(where, kind, item) for item in items)
    choices = field.metadata.get("choices") or ()
    unset = (None, "") if "none" in choices else (None, "", "none", "None")  # "none" may be a choice
    if optional and value in unset:
        return None
    value = _coerce_scalar(where, kind, value)
    if choices and value not in choices:
        raise UserError(f"{where} is {value!r}; allowed: {', '.join(map(str, choices))}")
    return value


def _coerce_scalar(where: str, kind: type, value: Any) -> Any:
    try:
        if kind is bool:
            if isinstance(value, str):
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                    value.strip().lower()
                ]
            if not isinstance(value, bool):
                raise ValueError
            return value
        if kind is int and (isinstance(value, bool) or (isinstance(value, float) and not value.is_integer())):
            raise ValueError
        if kind is str and not isinstance(value, str):
            raise ValueError
        return kind(value)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{where} is {value!r}, expected {_NAMES.get(kind, kind.__name__)}") from None


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
