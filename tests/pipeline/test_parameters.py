"""Parameters: texts become typed values, and mean the same in a pipeline as in a step's configuration."""

import inspect

import pytest

from latentrec.core import UserError, config_to_dict
from latentrec.steps.parameters import FIELDS, check_parameters, config_class, make_config, values_of
from latentrec.steps.parameters import SYSTEMS as GROUPS
from pipeline.dags import SYSTEMS, parse_parameters, pipeline_of


def defaults_of(system: str) -> dict:
    signature = inspect.signature(pipeline_of(system).pipeline_func)
    return {name: p.default for name, p in signature.parameters.items() if p.default is not p.empty}


def test_texts_become_typed_values():
    found = parse_parameters("latentr3", "k_core=1 grpo_epochs=0.5 skip_bad_lines=true backbone='a b'")
    assert found == {"k_core": 1, "grpo_epochs": 0.5, "skip_bad_lines": True, "backbone": "a b"}


def test_options_are_json():
    assert parse_parameters("latentr3", """options='{"sft": {"patience": 1}}'""") == {
        "options": {"sft": {"patience": 1}}
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k_cor=1", "no parameter 'k_cor'"),
        ("k_core=five", "parameter k_core is 'five', expected a whole number"),
        ("skip_bad_lines=perhaps", "expected true or false"),
        ("options={", "expected JSON"),
        ("k_core", "not name=value"),
    ],
)
def test_a_wrong_parameter_is_named(text, message):
    with pytest.raises(UserError, match=message):
        parse_parameters("latentr3", text)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_step_accepts_the_pipeline_s_defaults(system):
    options = check_parameters(system, {**defaults_of(system), "reviews": "r.json"}, {})
    assert not any(options.values())


@pytest.mark.parametrize("system", SYSTEMS)
def test_pipeline_defaults_are_the_step_s_own(system):
    """Else a profile would take a pipeline's default for a choice of the user's."""
    meant_otherwise = {"k_core", "split", "title_filter"}
    given = {**defaults_of(system), "backbone": "tiny"}  # rates follow the backbone
    for group in GROUPS[system]:
        made = config_to_dict(make_config(group, values_of(group, {**given, "reviews": "r.json"})))
        own = {"reviews": ("r.json",)} if group == "data" else {}
        plain = config_to_dict(config_class(group)(**own))
        for name in given:
            for target, field in FIELDS.get(name, ()):
                if target == group and name not in meant_otherwise:
                    assert made[field] == plain[field], f"{system}.{name} differs from {group}.{field}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stf": {}}, "no group 'stf'"),
        ({"sft": 3}, "expected a JSON object of fields"),
        ({"sft": {"patients": 3}}, "no field 'patients'"),
        ({"sft": {"patience": "many"}}, "sft.patience is 'many'"),
        ({"sft": {"patience": -1}}, "patience is -1"),
        ({"sft": {"epochs": 3}}, "'epochs', which is a parameter of its own"),
        ("x", "expected a JSON object"),
    ],
)
def test_wrong_options_are_refused_before_a_run_costs(options, message):
    with pytest.raises(UserError, match=message):
        check_parameters("latentr3", {**defaults_of("latentr3"), "reviews": "r.json"}, options)


def test_a_parameter_out_of_range_is_refused_before_a_run_costs():
    given = {**defaults_of("latentr3"), "reviews": "r.json", "grpo_group_size": 0}
    with pytest.raises(UserError, match="group_size"):
        check_parameters("latentr3", given, {})


def test_rates_left_at_zero_are_the_profile_s():
    given = {**defaults_of("latentr3"), "profile": "paper"}
    assert make_config("grpo", values_of("grpo", given)).noise_std == 1.5
    assert make_config("grpo", values_of("grpo", {**given, "grpo_noise_std": 0.7})).noise_std == 0.7
    default = {**given, "profile": "default"}
    assert make_config("grpo", values_of("grpo", default)).estimator == "gaussian"


@pytest.mark.parametrize("system", ["reczero", "recone"])
def test_rating_defaults_pass_as_kfp_hands_them_on(system):
    """KFP turns -1, 'as the profile says', into the text '-1.0'."""
    given = {
        "backbone": "tiny",
        "rating_steps": "-1.0",
        "rating_group_size": "8.0",
        "rating_learning_rate": "0.0",
    }
    check_parameters(system, {**given, "reviews": "r.json", "metadata": "m.json", "seed": "42.0"}, {})
    assert values_of("rating", given)["steps"] is None
    assert values_of("rating", {**given, "rating_steps": "0.0"})["steps"] == "0"
