"""Conditions on named outputs in KFP's local runner, as the pipelines use them: inside an exit handler."""

from pathlib import Path

import pytest
from kfp import dsl, local

from pipeline.kfp_compat import named_outputs_in_conditions
from tests.pipeline.kfp_steps import ended, found_content, known_content, trained


@dsl.pipeline(name="conditional")
def conditional(folder: str, known: str) -> None:
    with dsl.ExitHandler(ended(folder=folder), name="run"):
        found = found_content()
        last = known_content(known=known)
        with dsl.If(found.outputs["content"] != last.outputs["known_content"], name="new-data"):
            trained(folder=folder, content=found.outputs["content"])


@pytest.mark.parametrize(("known", "goes_on"), [("abc", False), ("", True), ("abd", True)])
def test_a_condition_reads_the_named_outputs_of_two_steps(tmp_path, known, goes_on):
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    with named_outputs_in_conditions():
        conditional(folder=str(tmp_path), known=known)
    assert (tmp_path / "trained").exists() == goes_on
    assert (tmp_path / "ended").exists()
    assert not goes_on or Path(tmp_path / "trained").read_text() == "abc"
