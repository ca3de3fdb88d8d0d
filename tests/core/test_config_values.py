"""Settings as text: pairs need no quoting, files are YAML 1.2, misspelt names get a suggestion."""

import pytest

from latentrec.core import UserError
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


@pytest.mark.parametrize(("text", "message"), [("k_core", "not name=value"), ("a=1 a=2", "a twice")])
def test_text_that_is_no_pair_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_pairs(text)


def test_scalars_are_those_of_yaml_1_2(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "sft:\n  learning_rate: 1e-4\n  seed: 3\ndata_window_start: 2017-10-01\n"
        "rating_grpo.vllm: off\ndata_skip_bad_lines: true\nsft.resume: null\n"
    )
    assert read_settings(path) == {
        "sft.learning_rate": 1e-4,
        "sft.seed": 3,
        "data_window_start": "2017-10-01",
        "rating_grpo.vllm": "off",
        "data_skip_bad_lines": True,
        "sft.resume": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sft:\n  seed: 1\nsft.seed: 2", "'sft.seed' is given twice"),
        ("!!python/object/apply:os.system [echo]", "not YAML"),
        ("3: 4", "key 3 is not a name"),
    ],
)
def test_ambiguous_or_unsafe_files_are_refused(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
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
