"""Configurations: one pydantic model is the source of flags, dictionaries and errors."""

import argparse
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from latentrec.core import (
    Config,
    UserError,
    add_config_arguments,
    config_from_dict,
    config_from_namespace,
    config_to_dict,
)
from latentrec.core.config import OPERATIONAL, LearningRate, OneOf, PositiveInt, Seed
from tests.errors import refused


class Example(Config):
    """A step's configuration."""

    step_name: ClassVar[str] = "example"

    k: PositiveInt = Field(5, description="neighbors")
    rate: LearningRate = Field(0.1, description="learning rate, 10% of the peak")
    split: Literal["temporal", "dates"] = Field("temporal", description="how to split")
    encoder: Annotated[str, OneOf("sasrec", "none")] | None = Field(None, description="one of a registry")
    limit: PositiveInt | None = Field(None, description="at most")
    edition: Literal[2014, 2018] = Field(2018, description="of the files")
    quick: bool = Field(False, description="cut corners")
    names: tuple[str, ...] = Field((), description="several")
    logging_steps: Annotated[PositiveInt, OPERATIONAL] = Field(10, description="steps between log lines")
    seed: Seed = Field(42, description="of everything")
    where: str = Field(description="a place")


def parse(*argv: str) -> Example:
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, Example)
    return config_from_namespace(Example, parser.parse_args(list(argv)))


def test_flags_become_typed_values():
    config = parse(
        "--where", "x", "--k", "7", "--rate", "2e-3", "--limit", "9", "--quick", "--names", "a", "b"
    )
    assert config == Example(where="x", k=7, rate=2e-3, limit=9, quick=True, names=("a", "b"))


def test_unset_flags_leave_the_defaults():
    assert parse("--where", "x") == Example(where="x")


def test_help_shows_default_and_meaning():
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, Example)
    text = " ".join(parser.format_help().split())
    assert "learning rate, 10% of the peak (default: 0.1)" in text
    assert "a place (required)" in text
    assert "{temporal,dates}" in text


def test_dictionary_round_trip():
    config = Example(where="x", names=("a",), limit=3)
    assert config_from_dict(Example, config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"where": "x", "encoders": 1}, "example has no field 'encoders'; did you mean 'encoder'?"),
        ({}, "example.where has no value: a place"),
        ({"where": "x", "k": "many"}, "example.k is 'many', expected a whole number"),
        ({"where": "x", "k": 1.5}, "example.k is 1.5, expected a whole number"),
        ({"where": "x", "k": True}, "example.k is 'True', expected a whole number"),
        ({"where": "x", "k": 0}, "example.k is 0, expected at least 1"),
        ({"where": "x", "quick": "perhaps"}, "example.quick is 'perhaps', expected true or false"),
        ({"where": "x", "split": "random"}, "example.split is 'random', expected one of temporal, dates"),
        ({"where": "x", "edition": "2016"}, "example.edition is 2016, expected one of 2014, 2018"),
        ({"where": "x", "encoder": "bert"}, "example.encoder is 'bert', expected one of sasrec, none"),
        ({"where": 3}, "example.where is 3, expected text"),
    ],
)
def test_error_names_field_value_and_cure(values, message):
    with pytest.raises(UserError) as caught:
        config_from_dict(Example, values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", float("nan")),
        ("rate", float("inf")),
        ("rate", "nan"),
        ("rate", "1e999"),
        ("seed", -1),
        ("seed", 2**32),
        ("k", 10**400),
        ("k", "1" + "0" * 400),
        ("k", float("inf")),
    ],
)
def test_numbers_that_no_run_can_use_are_refused(name, value):
    with pytest.raises(UserError, match=rf"example\.{name} is ") as caught:
        config_from_dict(Example, {"where": "x", name: value})
    assert len(str(caught.value)) < 200


def test_every_fault_is_listed_at_once():
    with pytest.raises(UserError) as caught:
        Example(where="x", k=0, split="random", color="red")
    assert [line.split()[0] for line in str(caught.value).splitlines()] == [
        "example.k",
        "example.split",
        "example",
    ]


def test_errors_carry_the_name_of_the_step_that_shares_a_class():
    with refused("config.invalid", "sasrec.k", "0"):
        config_from_dict(Example, {"where": "x", "k": 0}, step="sasrec")


def test_numbers_written_as_text_are_read():
    values = {"where": "x", "k": "3.0", "rate": " 1e-4", "limit": "none", "edition": 2014.0}
    config = config_from_dict(Example, values)
    assert (config.k, config.rate, config.limit, config.edition) == (3, 1e-4, None, 2014)


@pytest.mark.parametrize(
    ("given", "expected"), [("none", "none"), ("sasrec", "sasrec"), ("", None), (None, None)]
)
def test_none_is_a_value_where_it_is_one_of_the_choices(given, expected):
    assert config_from_dict(Example, {"where": "x", "encoder": given}).encoder == expected


def test_a_configuration_is_frozen_and_validated_again_when_a_copy_is_changed():
    config = Example(where="x")
    with pytest.raises(ValueError, match="frozen"):
        config.k = 3
    assert config.replace(k=3).k == 3
    with refused("config.invalid", "example.k", "0"):
        config.replace(k=0)


def test_result_fields_leave_out_what_cannot_change_the_result():
    config = Example(where="x", logging_steps=1)
    assert "logging_steps" not in config.result_fields()
    assert set(config.to_dict()) - set(config.result_fields()) == {"logging_steps"}


def test_settings_file_fills_fields_and_flags_win_over_it(tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text("where: here\nrate: 1e-4\nexample.k: 3\nnames: [a, b]\n")
    config = parse("--config", str(path), "--k", "4")
    assert (config.where, config.rate, config.k, config.names) == ("here", 1e-4, 4, ("a", "b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kk: 3", "example has no field 'kk'; did you mean 'k'"),
        ("sft.k: 3", "'sft.k' is a setting of step 'sft', this command runs 'example'"),
        ("k: 3\nexample.k: 4", "'k' is given twice"),
        ("k: 3\nk: 4", "key 'k' is given twice"),
        ("- k", "found a list"),
        ("k: [", "not YAML"),
    ],
)
def test_wrong_settings_file_is_refused_with_its_name(tmp_path, text, message):
    path = tmp_path / "example.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        parse("--where", "x", "--config", str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
