"""A configuration class as the flags of a command, and as the fields of its ``--config`` file."""

from __future__ import annotations

import argparse
from typing import Any, TypeVar

from latentrec.core.config import Config, config_from_dict, fields_of, help_text, kind_of
from latentrec.core.config_values import read_settings, suggestion
from latentrec.core.errors import UserError

C = TypeVar("C", bound=Config)
CONFIG_FILE = "config_file"


def add_config_arguments(parser: argparse.ArgumentParser, cls: type[Config]) -> None:
    """Give ``parser`` one flag for each field of ``cls``, with default and meaning, and ``--config FILE``.

    Flags have no default of their own, so that :func:`config_from_namespace` sees only what the user gave.
    """
    parser.add_argument(
        "--config",
        dest=CONFIG_FILE,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="YAML file of these settings, 'learning_rate: 1e-4' a line; flags win over it",
    )
    group = parser.add_argument_group(f"settings ({cls.step_name})")
    for name, field in fields_of(cls).items():
        kind = kind_of(field)
        flag = "--" + name.replace("_", "-")
        text = help_text(field).replace("%", "%%")
        common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text}
        if kind.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        elif kind.many:
            group.add_argument(flag, nargs="+", metavar="VALUE", **common)
        else:
            metavar = "{" + ",".join(kind.choices) + "}" if kind.choices else kind.type.__name__.upper()
            group.add_argument(flag, metavar=metavar, **common)


def config_from_namespace(cls: type[C], namespace: argparse.Namespace, **fixed: Any) -> C:
    """Build ``cls`` from a settings file and flags; flags win over the file, ``fixed`` values over both.

    Raises:
        UserError: as :func:`latentrec.core.config.config_from_dict`, or the file is not a settings file.
    """
    given = vars(namespace)
    path = given.get(CONFIG_FILE)
    values = step_settings(cls, path) if path else {}
    values |= {name: value for name, value in given.items() if name in fields_of(cls)}
    return config_from_dict(cls, {**values, **fixed})


def step_settings(cls: type[Config], path: str) -> dict[str, Any]:
    """The fields of one step in a settings file: plain names, or ``step.field``.

    Raises:
        UserError: a key is of no field, or of another step.
    """
    values: dict[str, Any] = {}
    known = fields_of(cls)
    for key, value in read_settings(path).items():
        name = key.removeprefix(f"{cls.step_name}.")
        step = key.partition(".")[0]
        if name == key and "." in key and key not in known:
            raise UserError(
                f"{path}: '{key}' is a setting of step '{step}', this command runs '{cls.step_name}'"
                f"{suggestion(step, [cls.step_name])}",
                code="config.other_step",
            )
        if name not in known:
            raise UserError(
                f"{path}: {cls.step_name} has no field '{name}'{suggestion(name, known)}",
                code="config.unknown_name",
            )
        if name in values:
            raise UserError(f"{path}: '{name}' is given twice", code="config.given_twice")
        values[name] = value
    return values
