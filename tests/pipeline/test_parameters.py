"""Parameters: texts become typed values, and every name reaches the field that it says."""

import pytest

from latentrec.core import UserError
from latentrec.steps.parameters import SYSTEMS as STEPS_OF
from latentrec.steps.parameters import check_parameters, config_class, make_config, step_values
from pipeline.dags import SYSTEMS, merge, parameter_defaults, parse_parameters, pipeline_of
from tests.errors import refused

REVIEWS = {"customer_reviews": "r.json"}


def defaults_of(system: str) -> dict:
    return parameter_defaults(pipeline_of(system))


def test_texts_become_typed_values_without_quoting():
    text = "data_k_core=1 eval_promotion_margin=0.5 data_skip_bad_lines=true sft_backbone=/o'brien/my model"
    assert parse_parameters("latentr3", text) == {
        "data_k_core": 1,
        "eval_promotion_margin": 0.5,
        "data_skip_bad_lines": True,
        "sft_backbone": "/o'brien/my model",
    }


def test_step_field_goes_to_the_settings_and_to_its_parameter_where_there_is_one():
    found = parse_parameters(
        "latentr3", "sft.learning_rate=1e-4 sft.num_train_epochs=2 data_prep.k_core=1 sft.seed=7"
    )
    assert found == {
        "settings": {"sft.learning_rate": "1e-4", "sft.seed": "7"},
        "sft_num_train_epochs": 2,
        "data_k_core": 1,
    }


@pytest.mark.parametrize(
    "text",
    [
        'settings={"evaluate":{"n_resamples":200}}',
        'settings=\'{"evaluate":{"n_resamples":200}}\'',
        'settings={"evaluate.n_resamples": 200}',
    ],
)
def test_settings_are_json_with_or_without_quotes(text):
    assert parse_parameters("latentr3", text) == {"settings": {"evaluate.n_resamples": 200}}


def test_settings_file_is_below_params(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("sft:\n  learning_rate: 1e-4\n  patience: 3\ndata_k_core: 2\nsft_num_train_epochs: 5\n")
    found = parse_parameters("latentr3", "sft.patience=4 sft.num_train_epochs=1", str(path))
    assert found == {
        "settings": {"sft.learning_rate": 1e-4, "sft.patience": "4"},
        "data_k_core": 2,
        "sft_num_train_epochs": 1,
    }


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("data_k_cor=1", "config.unknown_name", ("'data_k_cor'", "'data_k_core'")),
        ("learning_rate=1", "config.unknown_name", ("'learning_rate'", "'sft.learning_rate'")),
        ("sft.learning_rat=1", "config.unknown_name", ("'sft.learning_rat'", "'sft.learning_rate'")),
        ("sftt.seed=1", "config.unknown_name", ("'sftt.seed'", "'sft.seed'")),
        ("rpt.beta=1", "config.unknown_name", ("latentr3", "'rpt.beta'")),
        ("sasrec.encoder=caser", "config.fixed_by_pipeline", ("sasrec.encoder", "'sasrec'")),
        ("data_k_core=five", "config.bad_value", ("data_k_core", "'five'")),
        ("data_skip_bad_lines=perhaps", "config.bad_value", ("data_skip_bad_lines", "'perhaps'")),
        ("settings={", "config.bad_value", ("settings", "'{'")),
        ("data_k_core", "config.bad_value", ("'data_k_core'", "name=value")),
        ("data_k_core=1 data_prep.k_core=2", "config.given_twice", ("data_k_core", "data_prep.k_core")),
    ],
)
def test_a_wrong_parameter_is_named(text, code, named):
    with refused(code, *named):
        parse_parameters("latentr3", text)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_step_accepts_the_pipeline_s_defaults(system):
    configs = check_parameters(system, {**defaults_of(system), **REVIEWS})
    assert set(configs) == set(STEPS_OF[system])


@pytest.mark.parametrize("system", SYSTEMS)
def test_pipeline_defaults_are_the_step_s_own(system):
    """Else a profile would take a pipeline's default for a choice of the user's."""
    on_purpose = {"split", "title_filter", "backbone", "encoder", "reasoning_tokens", "task"}
    given = {**defaults_of(system), **REVIEWS}
    given = {name: "tiny" if name.endswith("_backbone") else value for name, value in given.items()}
    for step, values in step_values(system, given).items():
        made = make_config(step, values).to_dict()
        plain = config_class(step)(**({"reviews": ("r.json",)} if step == "data_prep" else {})).to_dict()
        for name in set(values) - on_purpose:
            assert made[name] == plain[name], f"{system}: {step}.{name}"


@pytest.mark.parametrize(
    ("settings", "code", "named"),
    [
        ({"stf": {"seed": 1}}, "config.unknown_name", ("'stf.seed'", "'sft.seed'")),
        ({"sft": 3}, "config.unknown_name", ("'sft'",)),
        ({"sft": {"patients": 3}}, "config.unknown_name", ("'sft.patients'", "'sft.patience'")),
        ({"sft": {"patience": "many"}}, "config.invalid", ("sft.patience", "'many'")),
        ({"sft": {"patience": -1}}, "config.invalid", ("sft.patience", "-1", "0")),
        ({"sft.seed": 1, "sft": {"seed": 2}}, "config.given_twice", ("'sft.seed'",)),
        ("x", "config.bad_value", ("'x'",)),
    ],
)
def test_wrong_settings_are_refused_before_a_run_costs(settings, code, named):
    with refused(code, *named):
        check_parameters("latentr3", {**defaults_of("latentr3"), **REVIEWS}, settings)


def test_everything_wrong_is_listed_with_the_names_that_the_user_gave():
    given = {**defaults_of("latentr3"), **REVIEWS, "data_k_core": 0, "seed": -1, "sft_num_train_epochs": 0}
    with pytest.raises(UserError) as caught:
        check_parameters("latentr3", given, {"grpo.num_generations": 0, "evaluate.alpha": float("nan")})
    assert [line.split(",")[0] for line in str(caught.value).splitlines()] == [
        "data_k_core is 0",
        "seed is -1",
        "sft_num_train_epochs is 0",
        "grpo.num_generations is 0",
        "evaluate.alpha is nan",
    ]


def test_backbone_takes_stage_1_s_settings_unless_it_has_its_own():
    settings = {"sft.learning_rate": 1e-3, "sft.patience": 3, "backbone.patience": 5}
    values = step_values(
        "latentr3", {**REVIEWS, "sft_num_train_epochs": 2, "sft_reasoning_tokens": 4}, settings
    )
    assert values["backbone"] == {
        "learning_rate": 1e-3,
        "patience": 5,
        "num_train_epochs": 2,
        "reasoning_tokens": 0,
    }
    assert values["sft"] == {
        "learning_rate": 1e-3,
        "patience": 3,
        "num_train_epochs": 2,
        "reasoning_tokens": 4,
    }


def test_what_is_not_given_is_the_profile_s():
    given = {**defaults_of("latentr3"), **REVIEWS, "profile": "paper"}
    assert make_config("grpo", step_values("latentr3", given)["grpo"]).to_dict()["noise_std"] == 1.5


def test_numbers_pass_as_kfp_hands_them_on():
    """KFP's structures know no whole numbers: 5 arrives as 5.0."""
    configs = check_parameters("reczero", {**REVIEWS, "seed": 42.0, "rating_grpo_num_generations": "8.0"})
    assert configs["rating_grpo"] == {"seed": 42, "num_generations": 8}
    assert (
        make_config("rating_grpo", {"seed": 42.0, "num_generations": 8.0}).to_dict()["num_generations"] == 8
    )


def test_merging_keeps_settings_that_only_one_has():
    first = {"seed": 1, "settings": {"sft.seed": 1, "sft.patience": 2}}
    assert merge(first, {"settings": {"sft.seed": 3}}) == {
        "seed": 1,
        "settings": {"sft.seed": 3, "sft.patience": 2},
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_published_recipe_is_accepted_as_a_whole(system):
    given = parse_parameters(system, "customer_reviews=r.json data_metadata=m.json profile=paper")
    checked = check_parameters(system, given)
    assert checked["data_prep"]["profile"] == "paper"
    assert "profile" not in checked.get("sasrec", {})
