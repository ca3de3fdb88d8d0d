"""Every field of every step: flag, settings file, pipeline parameter, component and manifest agree on it."""

import argparse
import inspect
import json
import re

import pytest
import yaml

from latentrec.cli import command_parser
from latentrec.core import UserError
from latentrec.core.config import default_text, fields_of, help_text, kind_of, value_of
from latentrec.core.config_flags import config_from_namespace
from latentrec.core.config_values import read_settings
from latentrec.steps.parameters import STEPS, SYSTEMS, config_class, make_config, step_values, targets_of
from pipeline.dags import parameter_defaults, parse_parameters, pipeline_of
from pipeline.signatures import kfp_default, kfp_type, parameter_field

REQUIRED = {"data_prep": {"reviews": ("r.json",)}}
OWN_COMMAND = {step: step.replace("_", "-") for step in STEPS} | {
    "popularity": "train-sequential",
    "sasrec": "train-sequential",
    "spt": "train-sequential",
    "backbone": "sft",
}
FIELDS = [(step, name) for step in STEPS for name in fields_of(config_class(step))]


def plain(step):
    return make_config(step, {**REQUIRED.get(step, {}), **STEPS[step].fixed})


def another_value(step, name):
    """A valid value that is not the default, as text and as it is; ``None`` where others depend on it."""
    kind = kind_of(fields_of(config_class(step))[name])
    default = value_of(plain(step), name)
    candidates = list(kind.choices)
    if not candidates:
        candidates = {bool: ["true", "false"], str: ["other", "2017-03-01"]}.get(kind.type, [])
    if kind.type in (int, float) and not kind.choices:
        number = default if isinstance(default, int | float) else 1
        candidates = [str(kind.type(one)) for one in (number + 1, number * 2, number / 2, 1, 2, 4, 0)]
    for text in candidates:
        try:
            made = make_config(step, {**REQUIRED.get(step, {}), name: text, **STEPS[step].fixed})
        except UserError:
            continue
        if value_of(made, name) != default:
            return text, value_of(made, name)
    return None


@pytest.mark.parametrize(("step", "name"), FIELDS, ids=lambda value: value)
def test_flag_file_and_manifest_agree(step, name, tmp_path):
    cls = config_class(step)
    field = fields_of(cls)[name]
    flag = "--" + name.replace("_", "-")
    (action,) = (one for one in command_parser(OWN_COMMAND[step])._actions if flag in one.option_strings)
    default = default_text(field)
    assert action.help % {} == help_text(field)
    assert help_text(field).startswith(field.description)
    assert re.search(rf"\((default: )?{re.escape(default)}\)$|\(default", help_text(field))

    written = json.loads(json.dumps(plain(step).to_dict()))
    assert name.split(".")[0] in written
    assert make_config(step, written) == plain(step), "a manifest's entry is the configuration again"

    if name in STEPS[step].fixed or (found := another_value(step, name)) is None:
        return
    text, value = found
    many = kind_of(field).many
    given = value if kind_of(field).type is not str or many else text
    path = tmp_path / "step.yaml"
    path.write_text(yaml.safe_dump({name: list(given) if many else given}))
    fixed = {n: v for n, v in {**REQUIRED.get(step, {}), **STEPS[step].fixed}.items() if n != name}
    namespace = argparse.Namespace(config_file=str(path))
    assert value_of(config_from_namespace(cls, namespace, **fixed), name) == value
    if kind_of(field).type is not bool:
        parsed = argparse.Namespace(**{name: text})
        assert value_of(config_from_namespace(cls, parsed, **fixed), name) == value


SETTINGS = [
    (system, step, name)
    for system, steps in SYSTEMS.items()
    for step in steps
    for name in fields_of(config_class(step))
    if name not in STEPS[step].fixed
]


@pytest.mark.parametrize(("system", "step", "name"), SETTINGS, ids=lambda value: value)
def test_params_and_settings_file_reach_the_step(system, step, name, tmp_path):
    found = another_value(step, name)
    if found is None:
        return
    text, value = found
    path = tmp_path / "run.yaml"
    path.write_text(f"{step}.{name}: {json.dumps(text)}\n")
    assert read_settings(path)
    for given in (
        parse_parameters(system, f"{step}.{name}={text}"),
        parse_parameters(system, "", str(path)),
    ):
        settings = given.pop("settings", {})
        values = step_values(system, given, settings)[step]
        assert value_of(make_config(step, {**REQUIRED.get(step, {}), **values}), name) == value


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_pipeline_s_parameter_is_the_field_that_it_fills(system):
    pipeline = pipeline_of(system)
    signature = inspect.signature(pipeline.pipeline_func).parameters
    defaults = parameter_defaults(pipeline)
    spec = pipeline.component_spec.inputs
    assert list(signature) == sorted(signature, key=lambda name: (name != "customer_reviews", name))
    own = {"gpu_count", "gpu_type", "data_split", "data_title_filter"}  # in which the systems differ
    for name, one in signature.items():
        field = parameter_field(system, name)
        assert one.annotation is kfp_type(name, field), name
        assert spec[name].description == field.description, name
        for step, target in targets_of(name, system):
            shared = fields_of(config_class(step))[target]
            assert kind_of(shared) == kind_of(field), f"{name} fills {step}.{target}"
        if name in defaults and name not in own and not name.endswith("_backbone"):
            assert defaults[name] == kfp_default(name, field), name


def test_most_fields_were_tried_with_another_value():
    untried = [f"{step}.{name}" for step, name in FIELDS if another_value(step, name) is None]
    fixed = [f"{step}.{name}" for step in STEPS for name in STEPS[step].fixed]
    assert len(set(untried) - set(fixed)) < len(FIELDS) / 10, untried
