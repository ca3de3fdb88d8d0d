"""A pipeline's parameters and the step configurations that they fill: one table, checked before a run costs.

A pipeline shows few, typed parameters; everything else that a step's configuration knows is reached through
its one JSON parameter ``options``: ``{"sft": {"weight_decay": 0.01}, "evaluate": {"max_users": 2000}}``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from latentrec.core import UserError, config_from_dict

CONFIGS = {
    "data": "latentrec.data:DataPrepConfig",
    "sequential": "latentrec.training.sequential.sequential_config:SequentialConfig",
    "lares": "latentrec.training.sequential.sequential_config:SequentialConfig",
    "sft": "latentrec.training.latentr3.sft_config:SFTConfig",
    "grpo": "latentrec.training.latentr3.grpo_config:LatentGRPOConfig",
    "title_objective": "latentrec.training.latentr3.title_objective_config:TitleObjectiveConfig",
    "rpt": "latentrec.training.sequential.rpt_config:RPTConfig",
    "pretrain": "latentrec.training.rating.rating_config:PretrainRatingConfig",
    "traces": "latentrec.training.rating.traces:TracesConfig",
    "cold_start": "latentrec.training.rating.rating_config:ColdStartConfig",
    "rating": "latentrec.training.rating.rating_config:RatingGRPOConfig",
    "evaluate": "latentrec.evaluation.evaluate_config:EvaluateConfig",
}
"""Configuration class of each group of options, imported when it is asked for."""

SYSTEMS = {
    "latentr3": ("data", "sequential", "sft", "grpo", "evaluate"),
    "lares": ("data", "sequential", "lares", "rpt", "evaluate"),
    "reczero": ("data", "pretrain", "rating", "evaluate"),
    "recone": ("data", "pretrain", "traces", "cold_start", "rating", "evaluate"),
}
"""The groups of options that each pipeline has."""

FIELDS: dict[str, tuple[tuple[str, str], ...]] = {
    "profile": (("data", "profile"), ("sft", "profile"), ("grpo", "profile"), ("rating", "profile")),
    "k_core": (("data", "k_core"),),
    "max_history": (("data", "max_history"),),
    "split": (("data", "split"),),
    "window_start": (("data", "window_start"),),
    "window_end": (("data", "window_end"),),
    "title_filter": (("data", "title_filter"),),
    "skip_bad_lines": (("data", "skip_bad_lines"),),
    "seed": tuple((group, "seed") for group in CONFIGS),
    "backbone": (("sft", "backbone"), ("pretrain", "backbone")),
    "reasoning_tokens": (("sft", "reasoning_tokens"),),
    "sft_epochs": (("sft", "epochs"),),
    "sft_batch_size": (("sft", "batch_size"),),
    "sft_learning_rate": (("sft", "learning_rate"),),
    "grpo_epochs": (("grpo", "epochs"),),
    "grpo_group_size": (("grpo", "group_size"),),
    "grpo_noise_std": (("grpo", "noise_std"),),
    "grpo_learning_rate": (("grpo", "learning_rate"),),
    "sasrec_epochs": (("sequential", "max_epochs"),),
    "lares_epochs": (("lares", "max_epochs"),),
    "rpt_epochs": (("rpt", "epochs"),),
    "rpt_learning_rate": (("rpt", "learning_rate"),),
    "endpoint": (("traces", "endpoint"),),
    "cold_start_epochs": (("cold_start", "epochs"),),
    "cold_start_learning_rate": (("cold_start", "learning_rate"),),
    "rating_steps": (("rating", "steps"),),
    "rating_group_size": (("rating", "group_size"),),
    "rating_learning_rate": (("rating", "learning_rate"),),
    "eval_beam_width": (("evaluate", "beam_width"),),
    "eval_decoding": (("evaluate", "decoding"),),
    "promotion_margin": (("evaluate", "promotion_margin"),),
}
"""The configuration fields that a pipeline parameter fills."""


PROFILE_DECIDES = {
    "sft": ("learning_rate",),
    "grpo": ("learning_rate", "noise_std"),
    "rating": ("learning_rate",),
}
"""Fields whose 0, as a pipeline parameter, leaves the choice to the profile."""


def config_class(group: str) -> type:
    """The configuration class of one group of options."""
    module, _, name = CONFIGS[group].partition(":")
    return getattr(importlib.import_module(module), name)


def make_config(group: str, values: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Any:
    """Build a step's configuration from a component's typed inputs and its further options.

    Raises:
        UserError: a field is unknown, out of range, or given twice.
    """
    extra = dict(options or {})
    twice = sorted(set(extra) & set(values))
    if twice:
        raise UserError(
            f"options of '{group}' set {twice[0]!r}, which is a parameter of its own; set that parameter"
        )
    return config_from_dict(config_class(group), {**values, **extra})


def check_parameters(system: str, parameters: Mapping[str, Any], options: Any) -> dict[str, dict[str, Any]]:
    """Check every step's configuration of a run; returns the options of each step (empty where none).

    Args:
        system: name of the pipeline.
        parameters: the pipeline's parameters by name; those that are ``None`` count as not given.
        options: the JSON parameter, by group.

    Raises:
        UserError: naming the first parameter or option that is wrong.
    """
    if system not in SYSTEMS:
        raise UserError(f"there is no system '{system}'; there are: {', '.join(SYSTEMS)}")
    groups = SYSTEMS[system]
    if not isinstance(options, Mapping):
        raise UserError(f'options is {options!r}, expected a JSON object such as {{"sft": {{…}}}}')
    for group, entry in options.items():
        if group not in groups:
            raise UserError(f"options has no group '{group}' for {system}; there are: {', '.join(groups)}")
        if not isinstance(entry, Mapping):
            raise UserError(f"options['{group}'] is {entry!r}, expected a JSON object of fields")
    devices = str(parameters.get("gpu_count") or 0).removesuffix(".0")
    for group in groups:
        config = make_config(group, values_of(group, parameters), options.get(group))
        if hasattr(config, "check_world") and devices.isdigit() and int(devices) > 1:
            config.check_world(int(devices))
    return {group: dict(options.get(group, {})) for group in CONFIGS}


def values_of(group: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one configuration that a pipeline's parameters fill."""
    values = {
        field: _plain(parameters[name])
        for name, targets in FIELDS.items()
        for target, field in targets
        if target == group and parameters.get(name) is not None
    }
    for name in PROFILE_DECIDES.get(group, ()):
        if str(values.get(name)) in ("0", "0.0"):
            values[name] = None
    if group == "rating" and str(values.get("steps")) == "-1":
        values["steps"] = None
    if group == "data":
        values |= {name: locations(parameters.get(name)) for name in ("reviews", "metadata")}
    return values


def _plain(value: Any) -> Any:
    """KFP may hand a whole number on as ``5.0`` or ``-1.0``."""
    whole = isinstance(value, str) and value.endswith(".0") and value[:-2].removeprefix("-").isdigit()
    return value[:-2] if whole else value


def locations(value: Any) -> tuple[str, ...]:
    """The locations in a text with commas between them."""
    return tuple(part.strip() for part in str(value or "").split(",") if part.strip())
