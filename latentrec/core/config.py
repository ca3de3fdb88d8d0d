"""Step configurations: one pydantic model a step, the source of flags, parameters, manifests and errors.

A configuration is a subclass of :class:`Config`, beside the code that it configures. Each field has a type
that states its range, a default and a description. Everything else is derived from these: the command's
flags (:mod:`latentrec.core.config_flags`), the keys of settings files and of pipeline parameters
(:mod:`latentrec.core.config_values`), the manifest's ``config`` entry and the error messages.

A field may itself be a configuration: a group of rarely used settings, such as the knobs of an ablation. Its
fields are named with a dot (``ablation.latent_width``) in flags, settings and errors; :func:`fields_of` lists
all fields that way.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, core_schema

from latentrec.core.config_values import suggestion
from latentrec.core.errors import UserError

LARGEST = 2**31 - 1

PositiveInt = Annotated[int, Field(ge=1, le=LARGEST)]
NonNegativeInt = Annotated[int, Field(ge=0, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0, le=LARGEST)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=LARGEST)]
BoundedFloat = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
"""Any number that a computation can use."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A share of a whole, 0 to 1."""
Probability = Annotated[float, Field(ge=0, lt=1)]
"""A dropout rate: everything dropped is no choice."""
LearningRate = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""numpy's and torch's generators take 32 bits."""


@dataclass(frozen=True)
class Operational:
    """Marks a field that cannot change the result, such as how often progress is logged.

    Such fields enter no checkpoint key and no cache key: changing one resumes the same work.
    """


OPERATIONAL = Operational()


class OneOf:
    """Restricts a text to names that are known only at run time, such as the keys of a registry.

    Where the names are written in the code, ``Literal`` says the same.
    """

    def __init__(self, *names: str):
        self.names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """A literal schema: pydantic reports a wrong name as it does for ``Literal``."""
        return core_schema.literal_schema(list(self.names))


@dataclass(frozen=True)
class FieldKind:
    """A field's type, taken apart.

    Attributes:
        type: ``str``, ``int``, ``float`` or ``bool``: of the value, or of each item.
        optional: whether ``None`` is allowed.
        many: whether the value is a tuple.
        choices: the values allowed, where they can be listed.
    """

    type: type
    optional: bool = False
    many: bool = False
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The type in words, for help texts and reference pages."""
        base = "{" + ", ".join(self.choices) + "}" if self.choices else _TYPE_NAMES[self.type]
        return f"list of {base}" if self.many else base


_TYPE_NAMES: dict[type, str] = {int: "integer", float: "number", bool: "boolean", str: "text"}
_BOUNDS = {
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
}
_EXPECTED: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "a JSON object of texts",
    list: "a JSON list",
}


class Config(BaseModel):
    """Base of the step configurations: frozen, closed to unknown names, finite numbers only.

    Attributes:
        step_name: prefix of the fields in errors and settings files, e.g. ``sft`` in ``sft.learning_rate``.

    Raises:
        UserError: an unknown name, a wrong type or a value out of range; lists every such fault.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)
    step_name: ClassVar[str] = "config"

    def __init__(self, /, **values: Any) -> None:
        self._validate(values, self.step_name)

    def _validate(self, values: Mapping[str, Any], step: str) -> None:
        try:
            type(self).__pydantic_validator__.validate_python(_nested(values), self_instance=self)
        except ValidationError as error:
            raise UserError(_explain(type(self), error, step), code="config.invalid") from None

    @model_validator(mode="before")
    @classmethod
    def _read_texts(cls, values: Any) -> Any:
        """Read what flags and KFP pass as text: an empty text is ``None``, commas separate a list."""
        if not isinstance(values, dict):
            return values
        known = cls.model_fields
        return {k: _from_text(kind_of(known[k]), v) if k in known else v for k, v in values.items()}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again.

        Raises:
            UserError: as the constructor.
        """
        return type(self)(**{**dict(self), **changes})

    def fill(self, values: Mapping[str, Any]) -> None:
        """Give fields that are ``None`` the value that a profile decides; only for use in validators."""
        for name, value in values.items():
            if getattr(self, name) is None:
                self.__dict__[name] = value

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON values, in field order."""
        return self.model_dump(mode="json")

    def result_fields(self) -> dict[str, Any]:
        """The fields that can change the result, as JSON values: what a checkpoint key holds."""
        operational = operational_fields(type(self))
        return {name: value for name, value in self.to_dict().items() if name not in operational}


C = TypeVar("C", bound=Config)


def config_from_dict(cls: type[C], values: Mapping[str, Any], step: str | None = None) -> C:
    """Build ``cls`` from JSON values or texts.

    Args:
        cls: configuration class.
        values: by field name.
        step: name of the step in errors, where several steps share a class; default: the class's own.

    Raises:
        UserError: a name is unknown, a required field is absent, or a value has the wrong type or range.
    """
    config = cls.__new__(cls)
    config._validate(values, step or cls.step_name)
    return config


def fields_of(cls: type[Config]) -> dict[str, FieldInfo]:
    """Every field by name, in order; those of a group as ``group.name``."""
    found: dict[str, FieldInfo] = {}
    for name, field in cls.model_fields.items():
        if group := _group_class(field):
            found |= {f"{name}.{inner}": one for inner, one in fields_of(group).items()}
        else:
            found[name] = field
    return found


def value_of(config: Config, name: str) -> Any:
    """The value of a field, named as :func:`fields_of` does."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _group_class(field: FieldInfo) -> type[Config] | None:
    """The configuration class of a field that is a group, else ``None``."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Config) else None


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """``{"group.name": 1}`` as ``{"group": {"name": 1}}``; a group given as a whole is the ground of both."""
    nested = {name: value for name, value in values.items() if "." not in name}
    for name, value in values.items():
        group, dot, inner = name.partition(".")
        if dot:
            whole = nested.get(group, {})
            nested[group] = {**(dict(whole) if isinstance(whole, Config | Mapping) else {}), inner: value}
    return nested


def kind_of(field: FieldInfo) -> FieldKind:
    """Take a field's type apart."""
    names = next((mark.names for mark in field.metadata if isinstance(mark, OneOf)), ())
    return _kind(field.annotation, names)


def operational_fields(cls: type[Config]) -> frozenset[str]:
    """Names of the fields marked :data:`OPERATIONAL`."""
    return frozenset(
        name
        for name, field in cls.model_fields.items()
        if any(isinstance(mark, Operational) for mark in field.metadata)
    )


def _kind(annotation: Any, choices: tuple[str, ...] = ()) -> FieldKind:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        names = next((mark.names for mark in arguments[1:] if isinstance(mark, OneOf)), choices)
        return _kind(arguments[0], names)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (one for one in arguments if one is not type(None))
        kind = _kind(inner, choices)
        return FieldKind(kind.type, True, kind.many, kind.choices)
    if origin is Literal:
        return FieldKind(type(arguments[0]), choices=tuple(str(one) for one in arguments))
    if origin is tuple:
        kind = _kind(arguments[0], choices)
        return FieldKind(kind.type, False, True, kind.choices)
    return FieldKind(annotation, choices=choices)


def _from_text(kind: FieldKind, value: Any) -> Any:
    if kind.many and isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, bool) and kind.type in (int, float):
        return str(value)  # pydantic would read True as 1
    if isinstance(value, str) and kind.type is not str:
        value = value.strip()
    if kind.optional and isinstance(value, str) and value.lower() in ("", "none", "null"):
        return value if value in kind.choices else None
    if kind.choices and kind.type is not str and isinstance(value, str | float):
        return int(float(value)) if str(value).removesuffix(".0").isdecimal() else value
    return value


def _explain(cls: type[Config], error: ValidationError, step: str) -> str:
    lines = dict.fromkeys(_lines(cls, error, step))
    return "\n".join(lines)


def _lines(cls: type[Config], error: ValidationError, step: str) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        if not fault["loc"]:
            cause = fault.get("ctx", {}).get("error")
            text = str(cause or fault["msg"])
            yield text if text.startswith(f"{step}.") else f"{step}: {text}"
            continue
        name = str(fault["loc"][0])
        group = _group_class(cls.model_fields[name]) if name in cls.model_fields else None
        if group and fault["type"] == "value_error":
            yield from str(fault["ctx"]["error"]).splitlines()  # the group has written it, with its own name
            continue
        where = f"{step}.{name}"
        if fault["type"] == "extra_forbidden":
            yield f"{step} has no field '{name}'{suggestion(name, fields_of(cls))}"
        elif fault["type"] == "missing":
            yield f"{where} has no value: {cls.model_fields[name].description}"
        else:
            yield f"{where} is {_short(fault['input'])}, {_expected(cls.model_fields[name], fault)}"


def _expected(field: FieldInfo, fault: Any) -> str:
    kind, code = kind_of(field), fault["type"]
    if kind.choices and code in ("literal_error", "string_type", "int_type"):
        return f"expected one of {', '.join(kind.choices)}"
    if code.endswith(("_parsing", "_type", "_from_float", "_size")):
        return f"expected {_EXPECTED.get(typing.get_origin(kind.type) or kind.type, 'a group of settings')}"
    message = str(fault["msg"]).replace("Input should be", "expected", 1).removeprefix("Value error, ")
    for theirs, ours in _BOUNDS.items():
        message = message.replace(theirs, ours)
    return message


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def default_text(field: FieldInfo) -> str:
    """A field's default as help texts show it."""
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, tuple):
        return ",".join(map(str, field.default)) or "none"
    return "none" if field.default in (None, "") else str(field.default)


def help_text(field: FieldInfo) -> str:
    """A field's description with its default, unless the description says what an unset field becomes."""
    default, description = default_text(field), str(field.description)
    if default == "none" and "(default" in description:
        return description
    return f"{description} ({'required' if default == 'required' else f'default: {default}'})"
