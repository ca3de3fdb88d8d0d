"""A pipeline's parameters and the configurations of its steps: one table, checked before a run costs.

A pipeline shows the few parameters that change from run to run, named ``<group>_<field>``. ``settings``
reaches every field of every step as ``step.field``: ``{"sft.weight_decay": 0.01}``.
Preflight turns both into one configuration a step, which is the step's only parameter.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentrec.core import Config, UserError, config_from_dict
from latentrec.core.config import fields_of, operational_fields
from latentrec.core.config_values import flatten, suggestion

_SEQUENTIAL = "latentrec.training.sequential.sequential_config:SequentialConfig"
_SFT = "latentrec.training.latentr3.sft_config:SFTConfig"


@dataclass(frozen=True)
class StepSettings:
    """Which configuration a step of a pipeline takes.

    Attributes:
        config: module and class, imported when it is asked for.
        fixed: fields that make the step what it is; settings cannot change them.
        like: another step, whose settings hold here too unless this step has its own.
    """

    config: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""


STEPS: dict[str, StepSettings] = {
    "data_prep": StepSettings("latentrec.data:DataPrepConfig"),
    "train_sequential": StepSettings(_SEQUENTIAL),
    "popularity": StepSettings(_SEQUENTIAL, {"encoder": "popularity"}),
    "sasrec": StepSettings(_SEQUENTIAL, {"encoder": "sasrec"}),
    "spt": StepSettings(_SEQUENTIAL, {"encoder": "lares"}),
    "rpt": StepSettings("latentrec.training.sequential.rpt_config:RPTConfig"),
    "backbone": StepSettings(_SFT, {"reasoning_tokens": 0}, like="sft"),
    "sft": StepSettings(_SFT),
    "title_objective": StepSettings(
        "latentrec.training.latentr3.title_objective_config:TitleObjectiveConfig"
    ),
    "grpo": StepSettings("latentrec.training.latentr3.grpo_config:LatentGRPOConfig"),
    "pretrain_rating": StepSettings("latentrec.training.rating.pretrain_config:PretrainRatingConfig"),
    "traces": StepSettings("latentrec.training.rating.traces:TracesConfig"),
    "cold_start_sft": StepSettings("latentrec.training.rating.rating_config:ColdStartConfig"),
    "rating_grpo": StepSettings("latentrec.training.rating.rating_config:RatingGRPOConfig"),
    "evaluate": StepSettings("latentrec.evaluation.evaluate_config:EvaluateConfig"),
}
"""The steps that have a configuration; ``train_sequential`` is the component that three of them run."""

SYSTEMS: dict[str, tuple[str, ...]] = {
    "latentr3": (
        *("data_prep", "popularity", "sasrec", "backbone", "sft"),
        *("title_objective", "grpo", "evaluate"),
    ),
    "lares": ("data_prep", "popularity", "sasrec", "spt", "rpt", "evaluate"),
    "reczero": ("data_prep", "pretrain_rating", "rating_grpo", "evaluate"),
    "recone": ("data_prep", "pretrain_rating", "traces", "cold_start_sft", "rating_grpo", "evaluate"),
}
"""The configured steps of each pipeline."""

STAGE_2 = {"default": "title_objective", "paper": "grpo"}
"""What LatentR3's task ``stage_2`` runs, by profile; the parameter ``stage_2`` overrides it."""

CONFIG_OUTPUTS = ("stage_2", *(step for step in STEPS if step not in ("train_sequential", *STAGE_2.values())))
"""The steps of preflight's outputs ``<step>_config``."""

RATING_SYSTEMS = ("reczero", "recone")

GROUPS = {"data": "data_prep", "eval": "evaluate"}
"""Prefixes of parameters that are shorter than their step's name; any other prefix is the step's name."""

REVIEWS = "customer_reviews"
"""The one required parameter. KFP's form sorts by name; this name comes before every other."""

FLOOR = "registry_floor"
"""What a model has to be above to be registered as champion: a field of the evaluation, which decides."""

SHARED = ("seed", "profile")
"""Parameters that fill the field of their name in every step that has it."""


def config_class(step: str) -> type[Config]:
    """The configuration class of one step."""
    module, _, name = STEPS[step].config.partition(":")
    return getattr(importlib.import_module(module), name)


def make_config(step: str, values: Mapping[str, Any]) -> Config:
    """Build a step's configuration.

    Raises:
        UserError: a field is unknown, of the wrong type or out of range.
    """
    return config_from_dict(config_class(step), values, step)


def targets_of(parameter: str, system: str) -> list[tuple[str, str]]:
    """The fields that a pipeline's parameter fills, as (step, field); none for what no step's field is."""
    steps = SYSTEMS[system]
    if parameter == REVIEWS:
        return [("data_prep", "reviews")]
    if parameter == FLOOR:
        return [("evaluate", "floor")]
    if parameter in SHARED:
        return [(step, parameter) for step in steps if _takes(step, parameter)]
    prefixes = {step: step for step in steps} | dict(GROUPS.items())
    for prefix, step in sorted(prefixes.items(), key=lambda pair: -len(pair[0])):
        name = parameter.removeprefix(f"{prefix}_")
        if name != parameter and name in fields_of(config_class(step)):
            return [(step, name)]
    return []


def _takes(step: str, shared: str) -> bool:
    """Whether a step has a field that every step shares; of the sequential models only LARES has a paper."""
    fixed = STEPS[step].fixed
    if shared in fixed or (shared == "profile" and fixed.get("encoder", "lares") != "lares"):
        return False
    return shared in fields_of(config_class(step))


def setting_names(system: str) -> list[str]:
    """Every ``step.field`` of a pipeline that settings can reach."""
    return [
        f"{step}.{name}"
        for step in SYSTEMS[system]
        for name in fields_of(config_class(step))
        if name not in STEPS[step].fixed
    ]


def split_settings(system: str, settings: Any, source: str = "settings") -> dict[str, dict[str, Any]]:
    """Settings by step.

    Args:
        system: name of the pipeline.
        settings: ``step.field`` to value, or steps to mappings of fields.
        source: file or parameter, for errors.

    Raises:
        UserError: not a mapping, or a name that is no field of a step of this pipeline.
    """
    if not isinstance(settings, Mapping):
        raise UserError(
            f'{source} is {settings!r}, expected a JSON object such as {{"sft.seed": 1}}',
            code="config.bad_value",
        )
    found: dict[str, dict[str, Any]] = {}
    for key, value in flatten(settings, source).items():
        step, _, name = key.partition(".")
        if step not in SYSTEMS[system] or not name:
            raise UserError(
                f"{source}: {system} has no setting '{key}'{_guess(key, system)}", code="config.unknown_name"
            )
        fixed = STEPS[step].fixed
        if name in fixed:
            raise UserError(
                f"{source}: {key} is fixed: the step '{step}' has {name} = {fixed[name]!r}",
                code="config.fixed_by_pipeline",
            )
        if name not in fields_of(config_class(step)):
            raise UserError(
                f"{source}: {system} has no setting '{key}'{_guess(key, system)}", code="config.unknown_name"
            )
        found.setdefault(step, {})[name] = value
    return found


def step_values(
    system: str, parameters: Mapping[str, Any], settings: Any = None
) -> dict[str, dict[str, Any]]:
    """What a run gives each step's configuration: parameters, then settings, then what is fixed.

    Args:
        system: name of the pipeline.
        parameters: the pipeline's parameters by name; those that are ``None`` count as not given.
        settings: as of :func:`split_settings`.

    Raises:
        UserError: there is no such system, or a setting is unknown.
    """
    if system not in SYSTEMS:
        raise UserError(
            f"there is no system '{system}'{suggestion(system, SYSTEMS)}", code="config.unknown_name"
        )
    chosen = split_settings(system, settings or {})
    values: dict[str, dict[str, Any]] = {step: {} for step in SYSTEMS[system]}
    for name, value in parameters.items():
        for step, target in targets_of(name, system) if value is not None else ():
            values[step][target] = value
    if system in RATING_SYSTEMS:
        values["data_prep"]["task"] = "rating"
    for step in values:
        like = STEPS[step].like
        inherited = {**values[like], **chosen.get(like, {})} if like else {}
        values[step] = {**inherited, **values[step], **chosen.get(step, {}), **STEPS[step].fixed}
    return values


def check_parameters(
    system: str, parameters: Mapping[str, Any], settings: Any = None
) -> dict[str, dict[str, Any]]:
    """Check every step's configuration of a run; returns what was given to each, as JSON values.

    Args:
        system, parameters, settings: as of :func:`step_values`.

    Raises:
        UserError: lists every parameter or setting that is wrong.
    """
    values = step_values(system, parameters, settings)
    origins = _origins(system, parameters, settings)
    processes = _processes(parameters)
    configs: dict[str, dict[str, Any]] = {}
    faults: dict[str, None] = {}
    for step, given in values.items():
        try:
            config = make_config(step, given)
            if hasattr(config, "check_world") and processes > 1:
                config.check_world(processes)
        except UserError as error:
            faults |= dict.fromkeys(_with_parameter(line, step, origins) for line in str(error).splitlines())
            continue
        configs[step] = {n: _json(config, n) for n, value in given.items() if value not in (None, "")}
    if faults:
        raise UserError("\n".join(faults), code="config.invalid")
    return configs


def _json(config: Config, name: str) -> Any:
    """The value of a field as JSON."""
    value: Any = config.to_dict()
    for part in name.split("."):
        value = value[part]
    return value


def _processes(parameters: Mapping[str, Any]) -> int:
    """Training processes that a run asks for: one for each accelerator, one for each node that has none.

    1 where the numbers are none, which is refused elsewhere.
    """
    given = [str(parameters.get(name) or 1).removesuffix(".0") for name in ("gpu_count", "gpu_nodes")]
    return max(int(given[0]), 1) * int(given[1]) if all(one.isdigit() for one in given) else 1


def separate_operational(
    configs: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Split configurations into what enters a cache key and what cannot change a result."""
    result: dict[str, dict[str, Any]] = {}
    operational: dict[str, dict[str, Any]] = {}
    for step, values in configs.items():
        aside = operational_fields(config_class(step))
        result[step] = {name: value for name, value in values.items() if name not in aside}
        kept = {name: value for name, value in values.items() if name in aside}
        if kept:
            operational[step] = kept
    return result, operational


def locations(value: Any) -> tuple[str, ...]:
    """The locations in a text with commas between them."""
    return tuple(part.strip() for part in str(value or "").split(",") if part.strip())


def _origins(system: str, parameters: Mapping[str, Any], settings: Any) -> dict[tuple[str, str], str]:
    """The parameter behind each field that no setting has changed."""
    chosen = split_settings(system, settings or {})
    found: dict[tuple[str, str], str] = {}
    for name, value in parameters.items():
        for step, target in targets_of(name, system) if value is not None else ():
            alike = [one for one in SYSTEMS[system] if one == step or STEPS[one].like == step]
            for other in alike:
                if not any(target in chosen.get(one, {}) for one in {other, step}):
                    found[other, target] = name
    return found


def _with_parameter(line: str, step: str, origins: Mapping[tuple[str, str], str]) -> str:
    """An error about ``step.field`` in the name of the parameter that the user sees."""
    # "sft.seed is …" by the schema; "data_prep: DataPrepConfig.window_end is …", "traces: endpoint is …" by
    # the checks of a class, which know no step.
    found = re.match(rf"(?:{step}: )?(?:\w+\.)?(\w+) (?=is |has )", line)
    if found is None or (step, found[1]) not in origins:
        # A configuration that several steps have knows itself by one name.
        return re.sub(rf"^{config_class(step).step_name}\.", f"{step}.", line)
    return f"{origins[step, found[1]]} {line[found.end() :]}"


def _guess(key: str, system: str) -> str:
    names = setting_names(system)
    found = suggestion(key, names)
    return found or f"; its steps are: {', '.join(SYSTEMS[system])}"


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings as MLflow and messages show them: sorted JSON."""
    return json.dumps(settings, sort_keys=True)
