"""Settings as text: pairs need no quoting, files are YAML 1.2, misspelt names get a suggestion."""

import pytest

from latentrec.core.config_values import parse_pairs, read_settings, suggestion
from tests.errors import refused


def test_values_reach_to_the_next_name_without_quoting():
    text = """sft.learning_rate=1e-4 sft.backbone=/data/o'brien/my model settings={"a": 1, "b": "c=d"} k=1"""
    assert parse_pairs(text) == {
        "sft.learning_rate": "1e-4",
        "sft.backbone": "/data/o'brien/my model",
        "settings": '{"a": 1, "b": "c=d"}',
        "k": "1",
    }


def test_one_pair_of_quotes_around_a_value_is_dropped():
    assert parse_pairs('a=\'{"b": 1}\' c="d e"') == {"a": '{"b": 1}', "c": "d e"}


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [("k_core", "config.bad_value", "'k_core'"), ("a=1 a=2", "config.given_twice", " a ")],
)
def test_text_that_is_no_pair_is_refused(text, code, named):
    with refused(code, named):
        parse_pairs(text)


def test_scalars_are_those_of_yaml_1_2(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "sft:\n  learning_rate: 1e-4\n  seed: 3\ndata_window_start: 2017-10-01\n"
        "rating_grpo.vllm_mode: off\ndata_skip_bad_lines: true\nsft.resume: null\n"
    )
    assert read_settings(path) == {
        "sft.learning_rate": 1e-4,
        "sft.seed": 3,
        "data_window_start": "2017-10-01",
        "rating_grpo.vllm_mode": "off",
        "data_skip_bad_lines": True,
        "sft.resume": None,
    }


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("sft:\n  seed: 1\nsft.seed: 2", "config.given_twice", "'sft.seed'"),
        ("!!python/object/apply:os.system [echo]", "config.unreadable_file", "os.system"),
        ("3: 4", "config.bad_value", "3"),
    ],
)
def test_ambiguous_or_unsafe_files_are_refused(tmp_path, text, code, named):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with refused(code, "run.yaml", named):
        read_settings(path)


def test_missing_file_is_a_user_error(tmp_path):
    with refused("config.unreadable_file"):
        read_settings(tmp_path / "absent.yaml")


def test_suggestion_names_the_closest():
    assert (
        suggestion("sft.learning_rat", ["sft.learning_rate", "sft.seed"])
        == "; did you mean 'sft.learning_rate'?"
    )
    assert suggestion("zzz", ["a", "b"]) == "; there are: a, b"


@pytest.mark.parametrize("text", ["", "  \n"])
def test_no_text_is_no_settings(text):
    assert parse_pairs(text) == {}
