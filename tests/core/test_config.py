"""Configurations: one pydantic model is the source of flags, dictionaries and errors."""

import argparse
import json
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from latentrec.core import (
    Config,
    UserError,
    add_config_arguments,
    config_from_dict,
    config_from_namespace,
)
from latentrec.core.config import (
    OPERATIONAL,
    LearningRate,
    OneOf,
    PositiveInt,
    Seed,
    fields_of,
    value_of,
)
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
    assert config_from_dict(Example, config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"where": "x", "encoders": 1}, ("example", "'encoders'", "'encoder'")),
        ({}, ("example.where",)),
        ({"where": "x", "k": "many"}, ("example.k", "'many'", "whole number")),
        ({"where": "x", "k": 1.5}, ("example.k", "1.5", "whole number")),
        ({"where": "x", "k": True}, ("example.k", "True", "whole number")),
        ({"where": "x", "k": 0}, ("example.k", "0", "at least 1")),
        ({"where": "x", "quick": "perhaps"}, ("example.quick", "'perhaps'", "true", "false")),
        ({"where": "x", "split": "random"}, ("example.split", "'random'", "temporal, dates")),
        ({"where": "x", "edition": "2016"}, ("example.edition", "2016", "2014, 2018")),
        ({"where": "x", "encoder": "bert"}, ("example.encoder", "'bert'", "sasrec, none")),
        ({"where": 3}, ("example.where", "3", "text")),
    ],
)
def test_error_names_field_value_and_cure(values, named):
    with refused("config.invalid", *named):
        config_from_dict(Example, values)


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
    with refused("config.invalid", f"example.{name} ") as caught:
        config_from_dict(Example, {"where": "x", name: value})
    assert len(str(caught.value)) < 200


def test_every_fault_is_listed_at_once():
    with pytest.raises(UserError) as caught:
        Example(where="x", k=0, split="random", color="red")  # type: ignore[call-arg]
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
        setattr(config, "k", 3)  # noqa: B010 (what a user would write, and a type checker refuses)
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
    ("text", "code", "named"),
    [
        ("kk: 3", "config.unknown_name", ("'kk'", "'k'")),
        ("sft.k: 3", "config.other_step", ("'sft.k'", "'example'")),
        ("k: 3\nexample.k: 4", "config.given_twice", ("'k'",)),
        ("k: 3\nk: 4", "config.unreadable_file", ("'k'", "twice")),
        ("- k", "config.unreadable_file", ("list",)),
        ("k: [", "config.unreadable_file", ("YAML",)),
    ],
)
def test_wrong_settings_file_is_refused_with_its_name(tmp_path, text, code, named):
    path = tmp_path / "example.yaml"
    path.write_text(text)
    with refused(code, str(path), *named):
        parse("--where", "x", "--config", str(path))


class Variant(Config):
    step_name: ClassVar[str] = "grouped.variant"

    width: PositiveInt = Field(8, description="a width")
    kind: Literal["a", "b"] = Field("a", description="a kind")


class Grouped(Config):
    step_name: ClassVar[str] = "grouped"

    k: PositiveInt = Field(1, description="a number")
    variant: Variant = Field(default_factory=Variant)


def test_fields_of_a_group_are_named_with_a_dot():
    assert list(fields_of(Grouped)) == ["k", "variant.width", "variant.kind"]
    config = config_from_dict(Grouped, {"variant.width": "4"})
    assert (value_of(config, "variant.width"), config.variant.kind) == (4, "a")
    assert config.replace(**{"variant.kind": "b"}).variant == Variant(width=4, kind="b")
    assert config_from_dict(Grouped, json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("text", ["variant:\n  width: 4", "variant.width: 4", "grouped.variant.width: 4"])
def test_a_group_s_field_is_a_flag_and_a_key_of_a_settings_file(tmp_path, text):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, Grouped)
    (tmp_path / "step.yaml").write_text(text)
    given = parser.parse_args(["--config", str(tmp_path / "step.yaml"), "--variant.kind", "b"])
    assert config_from_namespace(Grouped, given).variant == Variant(width=4, kind="b")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"variant.width": 0}, ("grouped.variant.width", "0")),
        ({"variant": {"width": "x"}}, ("grouped.variant.width", "'x'")),
        ({"variant.widht": 1}, ("grouped.variant", "'widht'", "'width'")),
        ({"variant": "x"}, ("grouped.variant", "'x'")),
        ({"other.width": 1}, ("grouped", "'other'")),
    ],
)
def test_what_is_wrong_in_a_group_is_named(values, named):
    with refused("config.invalid", *named):
        config_from_dict(Grouped, values)
