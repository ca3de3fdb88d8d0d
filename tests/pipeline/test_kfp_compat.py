"""Conditions on named outputs in KFP's local runner, as the pipelines use them: inside an exit handler."""

from pathlib import Path

import pytest
from kfp import dsl, local

from pipeline.kfp_compat import named_outputs_in_conditions, stopped_by_first_failure
from tests.pipeline.kfp_steps import ended, found_content, known_content, refused, trained


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


@dsl.pipeline(name="failing")
def failing(folder: str) -> None:
    with dsl.ExitHandler(ended(folder=folder).set_env_variable("LATENTREC_STEP", "run_summary"), name="run"):
        first = refused().set_env_variable("LATENTREC_STEP", "sft")
        for _ in range(3):
            trained(folder=folder, content="independent of the step that fails").after(first)
            trained(folder=folder, content="independent of the step that fails")


def test_after_a_failed_step_only_the_exit_handler_runs(tmp_path):
    began = []
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    with stopped_by_first_failure(began.append, always="run_summary") as failed, pytest.raises(RuntimeError):
        failing(folder=str(tmp_path))
    assert failed == ["sft"]
    assert began[-1] == "run_summary"
    assert began[began.index("sft") :] == ["sft", "run_summary"]
    assert (tmp_path / "ended").exists()
