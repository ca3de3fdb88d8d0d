"""A pipeline's parameters, made from the configuration classes: type, default and help are stated there.

A DAG file names the parameters that its form shows, and the defaults in which its system differs. KFP cannot
say "not given" of a number, so a parameter is a field with a value, or a text whose empty form means none;
every other field is reached through ``settings``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from latentrec.core.config import kind_of
from latentrec.steps.parameters import REVIEWS, config_class, targets_of
from latentrec.steps.run_config import RunConfig

TEXTS = ("gpu_count",)
"""Numbers that KFP must get as text: it leaves out a resource whose value is a number."""

COMMON = (
    REVIEWS,
    "data_cutoff",
    "data_k_core",
    "data_max_history",
    "data_metadata",
    "data_only_new",
    "data_skip_bad_lines",
    "data_split",
    "data_title_filter",
    "data_window_end",
    "data_window_start",
    "eval_promotion_margin",
    "gpu_count",
    "gpu_machine_type",
    "gpu_node_selector",
    "gpu_spot",
    "gpu_tolerations",
    "gpu_type",
    "registry_floor",
    "registry_model_name",
    "resources",
    "seed",
    "settings",
    "train_cpu",
    "train_memory",
)
"""Parameters of every pipeline."""


def parameter_field(system: str, name: str) -> FieldInfo:
    """The configuration field behind a pipeline's parameter.

    Raises:
        AssertionError: there is none; a DAG file names a parameter wrongly.
    """
    if name in RunConfig.model_fields:
        return RunConfig.model_fields[name]
    targets = targets_of(name, system)
    assert targets, f"{system}: parameter {name} is no field of a step or of RunConfig"
    step, target = targets[0]
    return config_class(step).model_fields[target]


def kfp_type(name: str, field: FieldInfo) -> type:
    """The type of a parameter, of those that KFP knows."""
    kind = kind_of(field)
    if name in TEXTS or kind.many:
        return str
    origin = getattr(kind.type, "__origin__", kind.type)
    assert not kind.optional or origin is str, f"{name}: KFP cannot leave a {origin.__name__} out"
    return origin


def kfp_default(name: str, field: FieldInfo) -> Any:
    """The default of a pipeline's parameter; ``inspect.Parameter.empty`` where it is required."""
    if name == REVIEWS:
        return inspect.Parameter.empty
    assert field.default is not PydanticUndefined, name
    if field.default is None:
        return ""
    if isinstance(field.default, tuple):
        return ",".join(field.default)
    return str(field.default) if name in TEXTS else field.default


def choices(system: str, name: str) -> tuple[Any, ...]:
    """The values that a parameter may have, where they can be listed; else empty.

    Args:
        system: name of the pipeline.
        name: of its parameter.
    """
    field = parameter_field(system, name)
    kind = kind_of(field)
    type_ = kfp_type(name, field)
    if type_ is bool:
        return (True, False)
    if not kind.choices or kind.many:
        return ()
    return (*(("",) if kind.optional else ()), *(type_(one) for one in kind.choices))


def parameters(
    system: str, *names: str, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a DAG function the signature of its pipeline: :data:`COMMON`, ``names``, and ``defaults``.

    The function itself takes the parameters as one dictionary. To stand below ``@dsl.pipeline``.

    Args:
        system: name of the pipeline.
        names: further parameters.
        defaults: values in which this pipeline differs from its steps' configurations.
    """
    every = sorted({*COMMON, *names, *defaults}, key=lambda name: (name != REVIEWS, name))
    fields = {name: parameter_field(system, name) for name in every}
    signature = inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=defaults.get(name, kfp_default(name, field)),
                annotation=kfp_type(name, field),
            )
            for name, field in fields.items()
        ]
    )
    lines = "\n".join(f"        {name}: {field.description}" for name, field in fields.items())

    def decorate(dag: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(dag)
        def pipeline(*args: Any, **kwargs: Any) -> None:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            dag(dict(bound.arguments))

        pipeline.__signature__ = signature  # type: ignore[attr-defined]
        pipeline.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()}
        pipeline.__doc__ = f"{(dag.__doc__ or '').strip()}\n\n    Args:\n{lines}\n"
        return pipeline

    return decorate
