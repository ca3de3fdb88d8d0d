"""Settings as text: ``step.field=value`` pairs and YAML files, and what a misspelt name may have meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from latentrec.core.documents import parse_document
from latentrec.core.errors import UserError
from latentrec.core.text import one_line

_PAIR = re.compile(r"(?:^|\s)([A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*)=")


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or the names there are, for an error about an unknown name."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; there are: {', '.join(names)}" if len(names) <= 40 else ""


def parse_pairs(text: str, variable: str = "PARAMS") -> dict[str, str]:
    """Read ``name=value step.field=value``. No quoting: a value ends where the next ``name=`` begins.

    So values may hold spaces, quotes, braces and commas. One pair of quotes around a whole value is dropped.

    Raises:
        UserError: text before the first name, or a name given twice.
    """
    matches = list(_PAIR.finditer(text))
    before = text[: matches[0].start()] if matches else text
    if before.strip():
        found = before.strip()
        raise UserError(
            f"{variable}: {found!r} is not name=value; write {variable}='name=value name=value'",
            code="config.bad_value",
        )
    pairs: dict[str, str] = {}
    for match, following in zip_longest(matches, matches[1:]):
        end = following.start() if following else len(text)
        name, value = match[1], text[match.end() : end].strip()
        if name in pairs:
            raise UserError(f"{variable} gives {name} twice", code="config.given_twice")
        pairs[name] = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    return pairs


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read a YAML (or JSON) settings file; nested mappings become ``step.field`` keys.

    Numbers and booleans follow YAML 1.2: ``1e-4`` is a number, ``off`` and ``2017-10-01`` are texts.

    Raises:
        UserError: the file cannot be read, is no mapping, or gives a key twice.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            values = yaml.load(stream, Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})",
            code="config.unreadable_file",
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # a number of thousands of digits is a ValueError
        raise UserError(f"{path}: not YAML ({one_line(error)})", code="config.unreadable_file") from None
    except RecursionError:
        raise UserError(
            f"{path}: not YAML of settings (nested too deeply)", code="config.unreadable_file"
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: expected 'step.field: value' lines, found a {type(values).__name__}",
            code="config.unreadable_file",
        )
    return flatten(values, str(path))


def flatten(values: Mapping[Any, Any], source: str, depth: int = 2) -> dict[str, Any]:
    """``{"sft": {"seed": 1}}`` as ``{"sft.seed": 1}``.

    Args:
        values: a mapping of names to values, or of steps and groups to such mappings.
        source: file or parameter, for errors.
        depth: levels of nesting that are taken apart.

    Raises:
        UserError: a key is no name, or is given twice.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(key, str):
            raise UserError(f"{source}: key {key!r} is not a name", code="config.bad_value")
        inner = {key: value}
        if isinstance(value, Mapping) and depth and key.count(".") < 2:
            inner = {f"{key}.{name}": one for name, one in flatten(value, source, depth - 1).items()}
        for name, one in inner.items():
            if name in flat:
                raise UserError(f"{source}: '{name}' is given twice", code="config.given_twice")
            flat[name] = one
    return flat


def parse_json(name: str, value: str, kind: type) -> Any:
    """Read a JSON object or list given as text.

    Raises:
        UserError: it is neither, or not of that kind.
    """
    expected = 'a JSON object such as {"key": "value"}' if kind is dict else "a JSON list"
    try:
        found = parse_document(value)
    except ValueError:
        found = None
    if not isinstance(found, kind):
        raise UserError(f"{name} is {value!r}, expected {expected}", code="config.bad_value")
    return found


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of version 1.2, and no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice: one of the two would be lost."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {twice!r} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    _first_list: Any = [*_first.replace("\0", ""), *([""] if "\0" in _first else [])]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first_list)
