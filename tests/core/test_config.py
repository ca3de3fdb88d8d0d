"""Configurations: one dataclass is the source of flags, dictionaries and errors."""

import argparse
from dataclasses import dataclass

import pytest

from latentrec.core import (
    UserError,
    add_config_arguments,
    config_from_dict,
    config_from_namespace,
    config_to_dict,
    option,
)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A step's configuration."""

    k: int = option(5, help="neighbours")
    rate: float = option(0.1, help="learning rate, 10% of the peak")
    split: str = option("temporal", help="how to split", choices=("temporal", "dates"))
    limit: int | None = option(None, help="at most")
    quick: bool = option(False, help="cut corners")
    names: tuple[str, ...] = option((), help="several")
    where: str = option(help="a place")


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


def test_help_shows_default_and_meaning(capsys):
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
        ({"where": "x", "kk": 1}, "no field 'kk'"),
        ({}, "needs a value for 'where'"),
        ({"where": "x", "k": "many"}, "Example.k is 'many', expected a whole number"),
        ({"where": "x", "k": 1.5}, "Example.k is 1.5, expected a whole number"),
        ({"where": "x", "k": True}, "Example.k is True, expected a whole number"),
        ({"where": "x", "quick": "perhaps"}, "Example.quick is 'perhaps', expected true or false"),
        ({"where": "x", "split": "random"}, "Example.split is 'random'; allowed: temporal, dates"),
        ({"where": 3}, "Example.where is 3, expected text"),
    ],
)
def test_error_names_field_value_and_cure(values, message):
    with pytest.raises(UserError) as caught:
        config_from_dict(Example, values)
    assert message in str(caught.value)


def test_numbers_written_as_text_are_read():
    config = config_from_dict(Example, {"where": "x", "k": "3", "rate": "1e-4", "limit": "none"})
    assert (config.k, config.rate, config.limit) == (3, 1e-4, None)


def test_none_is_a_value_where_it_is_one_of_the_choices():
    @dataclass(frozen=True, kw_only=True)
    class Packed:
        packing: str | None = option(None, help="how", choices=("none", "exact"))

    for given, expected in (("none", "none"), ("exact", "exact"), ("", None), (None, None)):
        assert config_from_dict(Packed, {"packing": given}).packing == expected
