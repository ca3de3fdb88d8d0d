"""Conditions on named outputs in KFP's local runner, as the pipelines use them: inside an exit handler."""

from pathlib import Path
from typing import Optional

import pytest
from kfp import dsl, local

from pipeline.kfp_compat import (
    artifacts_as_launched,
    named_outputs_in_conditions,
    settings_without_sources,
    stopped_by_first_failure,
)
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


@dsl.component
def produced(model: dsl.Output[dsl.Model]) -> None:
    with open(model.path, "w") as stream:
        stream.write("weights")


@dsl.component
def consumed(model: dsl.Input[dsl.Model], other: Optional[dsl.Input[dsl.Model]] = None) -> None:  # noqa: UP045
    pass


@dsl.pipeline(name="optional")
def optional_artifact() -> None:
    made = produced()
    consumed(model=made.outputs["model"], other=made.outputs["model"])


def test_what_a_cluster_refuses_is_refused_here_too(tmp_path):
    """An artifact annotated as optional runs by the schema title that only the local runner hands over."""
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    optional_artifact()
    with artifacts_as_launched(), pytest.raises(RuntimeError):
        optional_artifact()


def test_settings_read_no_sources_and_still_refuse_by_name(monkeypatch):
    def searched(*_: int) -> None:
        raise AssertionError("the sources of the whole stack were read")

    monkeypatch.setattr("inspect.stack", searched)
    seen = []

    @dsl.pipeline(name="settings")
    def settings() -> None:
        model = dsl.importer(artifact_uri="gs://bucket/model", artifact_class=dsl.Model)
        with settings_without_sources():
            seen.append(refused().set_cpu_limit("2").container_spec.resources.cpu_limit)
            with pytest.raises(ValueError, match=r"^set_cpu_limit can only be used on single-step"):
                model.set_cpu_limit("2")
        with pytest.raises(AssertionError, match="sources"):  # as KFP does it: the reason for all this
            model.set_cpu_limit("2")

    assert seen == ["2"]
