"""The run tree of the contracts, through ``step_run``: what a command opens, what a retry finds."""

from __future__ import annotations

import json
import os

import pytest

from latentrec.core import Interrupted
from latentrec.steps.status import read_step_statuses
from latentrec.steps.step_run import end_abandoned_runs, ensure_parent_run, finish_parent_run, step_run
from latentrec.storage import ArtifactWriter, read_manifest
from latentrec.tracking.run_context import RunContext
from latentrec.tracking.runs import RunTree
from latentrec.training.common.metric_logger import NullMetricLogger
from tests.errors import refused


def history(tracked, run, key):
    return [(point.step, point.value) for point in tracked.client.get_metric_history(run.info.run_id, key)]


def test_without_a_tracking_uri_only_the_status_is_recorded(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-1")
    monkeypatch.setenv("LATENTREC_STATUS_ROOT", str(tmp_path))
    with step_run("sft", config={"lr": 0.1}) as run:
        assert isinstance(run.metric_logger, NullMetricLogger)
    assert [(s.step, s.state) for s in read_step_statuses(str(tmp_path), "run-1")] == [("sft", "succeeded")]


def test_steps_of_one_pipeline_run_nest_under_one_tagged_parent(tracked):
    for step in ("data_prep", "sft"):
        with step_run(step):
            pass
    (parent,) = tracked.parents()
    for step in ("data_prep", "sft"):
        (run,) = tracked.steps(step)
        tags = run.data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert (tags["pipeline.name"], tags["pipeline.run_id"]) == ("latentr3", "run-1")
        assert (tags["git.sha"], tags["image.digest"]) == ("abc123", "sha256:feed")
        assert run.info.status == "FINISHED"


def test_another_pipeline_run_gets_another_parent(tracked, monkeypatch):
    with step_run("sft"):
        pass
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-2")
    with step_run("sft"):
        pass
    assert len(tracked.parents()) == 2
    assert len({run.data.tags["mlflow.parentRunId"] for run in tracked.steps("sft")}) == 2


def test_retry_resumes_the_nested_run_of_its_step(tracked):
    def lose_the_node():
        with step_run("sft") as first:
            first.metric_logger.log_metrics({"loss": 2.0}, 1)
            raise RuntimeError("node gone")

    with pytest.raises(RuntimeError):
        lose_the_node()
    (failed,) = tracked.steps("sft")
    assert (failed.info.status, failed.data.tags["error"]) == ("FAILED", "node gone")
    with step_run("sft") as second:
        second.metric_logger.log_metrics({"loss": 1.0}, 2)
    (run,) = tracked.steps("sft")
    assert run.info.status == "FINISHED"
    assert run.data.tags["latentrec.attempt"] == "2"
    assert history(tracked, run, "loss") == [(1, 2.0), (2, 1.0)]


def test_a_run_injected_for_the_step_is_the_step_s_and_the_one_above_it_the_pipeline_s(tracked, monkeypatch):
    """KFP's MLflow plugin opens both, and hands the step its own."""
    experiment = tracked.client.create_experiment("the platform's")
    root = tracked.client.create_run(experiment).info.run_id
    injected = tracked.client.create_run(experiment, tags={"mlflow.parentRunId": root}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with step_run("sft") as run:
        assert "MLFLOW_RUN_ID" not in os.environ
        assert run.mlflow_run_id == injected
        run.metric_logger.log_metrics({"loss": 2.0}, 1)
    (found,) = tracked.steps("sft")
    assert found.info.run_id == injected
    assert found.data.tags["mlflow.parentRunId"] == root
    assert found.data.metrics["loss"] == 2.0
    assert [parent.info.run_id for parent in tracked.parents()] == [root]
    assert len(tracked.runs()) == 2, "no second run is made"


def test_a_lost_pod_s_injected_run_is_taken_up_by_the_next_pod(tracked, monkeypatch):
    experiment = tracked.client.create_experiment("the platform's")
    root = tracked.client.create_run(experiment).info.run_id
    injected = tracked.client.create_run(experiment, tags={"mlflow.parentRunId": root}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with pytest.raises(Interrupted), step_run("sft"):
        raise Interrupted("SIGTERM")
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with step_run("sft"):
        pass
    (found,) = tracked.steps("sft")
    assert (found.info.status, found.data.tags["latentrec.attempt"]) == ("FINISHED", "2")


def test_settings_of_the_installation_yield_to_those_of_the_platform(tracked, monkeypatch):
    """The pod gets the first from a ConfigMap under names of ours; the plugin sets the others with values."""
    monkeypatch.setenv("LATENTREC_MLFLOW_TRACKING_URI", "http://ours:5000")
    monkeypatch.setenv("LATENTREC_MLFLOW_EXPERIMENT_NAME", "ours")
    assert RunContext.from_environment().tracking_uri == tracked.uri
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    context = RunContext.from_environment()
    assert (context.tracking_uri, context.experiment) == ("http://ours:5000", "ours")
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://ours:5000", "for MLflow's own calls"


def test_an_injected_run_with_nothing_above_it_is_the_pipeline_s(tracked, monkeypatch):
    experiment = tracked.client.create_experiment("the platform's")
    injected = tracked.client.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with step_run("sft"):
        pass
    (run,) = tracked.steps("sft")
    assert run.data.tags["mlflow.parentRunId"] == injected
    assert run.info.experiment_id == experiment


def test_the_end_of_a_run_ends_every_run_below_it(tracked):
    """Whoever died: a step that could not say so itself gets its verdict with the pipeline's."""
    tree = RunTree(RunContext.from_environment())
    ensure_parent_run()
    for step in ("data_prep", "sft", "backbone"):
        tree.step(step)
    finish_parent_run("KILLED", steps={"data_prep": "FINISHED", "sft": "FAILED"})
    assert {s: tracked.steps(s)[0].info.status for s in ("data_prep", "sft", "backbone")} == {
        "data_prep": "FINISHED",
        "sft": "FAILED",
        "backbone": "KILLED",
    }
    assert tracked.parents()[0].info.status == "KILLED"
    assert not [run for run in tracked.runs() if run.info.status == "RUNNING"]


def test_runs_whose_exit_handler_died_are_ended_by_the_next_run(tracked, monkeypatch):
    for run_id, workflow in (("run-1", "gone"), ("run-2", "going"), ("run-3", "")):
        monkeypatch.setenv("LATENTREC_RUN_ID", run_id)
        ensure_parent_run(tags={"kfp.workflow": workflow} if workflow else {})
        RunTree(RunContext.from_environment()).step("sft")
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-4")
    ensure_parent_run()
    end_abandoned_runs(lambda workflow: workflow == "gone")
    states = {run.data.tags["pipeline.run_id"]: run.info.status for run in tracked.parents()}
    assert states == {"run-1": "KILLED", "run-2": "RUNNING", "run-3": "RUNNING", "run-4": "RUNNING"}
    assert [run.info.status for run in tracked.steps("sft")].count("KILLED") == 1


def test_steps_left_running_below_an_ended_run_are_ended_by_the_next_run(tracked, monkeypatch):
    """Seen on KFP: a step whose pod outlived its run's summary stayed RUNNING for ever."""
    for run_id, workflow in (("run-1", "gone"), ("run-2", "retried"), ("run-3", "gone")):
        monkeypatch.setenv("LATENTREC_RUN_ID", run_id)
        parent = ensure_parent_run(tags={"kfp.workflow": workflow})
        finish_parent_run("FAILED" if run_id != "run-3" else "FINISHED")
        tree = RunTree(RunContext.from_environment())
        tree.step("sft")
        assert tree.client.get_run(parent).info.status != "RUNNING"
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-4")
    ensure_parent_run()
    ended = end_abandoned_runs(lambda workflow: workflow == "gone")
    states = {run.data.tags["pipeline.run_id"]: run.info.status for run in tracked.steps("sft")}
    assert states == {"run-1": "KILLED", "run-2": "RUNNING", "run-3": "KILLED"}
    assert len(ended) == 2
    parents = {run.data.tags["pipeline.run_id"]: run.info.status for run in tracked.parents()}
    assert parents["run-1"] == "FAILED", "the verdict of the run itself stands"


def test_interrupted_step_is_marked_as_killed(tracked):
    with pytest.raises(Interrupted), step_run("grpo"):
        raise Interrupted("SIGTERM")
    assert tracked.steps("grpo")[0].info.status == "KILLED"


def test_metrics_params_and_artifacts_of_a_step_arrive(tracked, tmp_path):
    report = tmp_path / "report.html"
    report.write_text("<p>fine</p>")
    with step_run("evaluate", config={"beam_width": 10, "host": "bigrec"}) as run:
        for step in range(1200):
            run.metric_logger.log_metrics({"ndcg@10": step / 7, "bad": float("nan")}, step)
        run.metric_logger.log_artifact(report)
        report.unlink()
    (found,) = tracked.steps("evaluate")
    assert found.data.params == {"beam_width": "10", "host": "bigrec"}
    assert history(tracked, found, "ndcg_10") == [(step, step / 7) for step in range(1200)]
    assert "bad" not in found.data.metrics
    names = {entry.path for entry in tracked.client.list_artifacts(found.info.run_id)}
    assert names == {"config.json", "report.html"}


def test_system_metrics_are_on(tracked):
    with step_run("sft"):
        pass
    metrics = tracked.steps("sft")[0].data.metrics
    assert metrics["system/system_memory_usage_megabytes"] > 0


def test_dataset_is_an_input_by_its_fingerprint(tracked, tmp_path):
    with ArtifactWriter(tmp_path / "dataset", "dataset", {"k_core": 5}) as writer:
        (writer.path / "items.parquet").write_bytes(b"x")
        writer.counts = {"items": 1}
    with step_run("sft", dataset=tmp_path / "dataset"):
        pass
    (run,) = tracked.steps("sft")
    fingerprint = writer.manifest.fingerprint
    assert run.data.tags["dataset.fingerprint"] == fingerprint
    (used,) = run.inputs.dataset_inputs
    assert fingerprint.startswith(used.dataset.digest)
    assert json.loads(used.dataset.profile)["fingerprint"] == fingerprint


def test_manifest_names_the_run_that_made_it_and_keeps_its_fingerprint(tracked, tmp_path):
    def write(name):
        with ArtifactWriter(tmp_path / name, "dataset", {"k_core": 5}) as writer:
            (writer.path / "a").write_bytes(b"x")
        return read_manifest(tmp_path / name)

    with step_run("data_prep") as run:
        inside = write("one")
        expected = run.mlflow_run_id
    outside = write("two")
    assert inside.extra["mlflow_run_id"] == expected
    assert "mlflow_run_id" not in outside.extra
    assert inside.fingerprint == outside.fingerprint


def test_only_rank_zero_of_a_distributed_step_reports(tracked, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with step_run("sft") as run:
        assert isinstance(run.metric_logger, NullMetricLogger)
    assert tracked.runs() == []


def test_step_name_of_the_dag_overrides_the_commands_own(tracked, monkeypatch):
    monkeypatch.setenv("LATENTREC_STEP", "sft_backbone")
    with step_run("sft"):
        pass
    assert tracked.steps("sft") == []
    assert len(tracked.steps("sft_backbone")) == 1


def test_preflight_opens_the_parent_with_the_pipelines_parameters(tracked):
    parent = ensure_parent_run({"seed": 42}, {"kfp.url": "https://kfp.example/run/1"})
    (run,) = tracked.parents()
    assert run.info.run_id == parent
    assert run.data.params == {"seed": "42"}
    assert run.data.tags["kfp.url"] == "https://kfp.example/run/1"


def test_exit_handler_ends_the_parent_with_its_summary(tracked, tmp_path):
    ensure_parent_run()
    summary = tmp_path / "summary.md"
    summary.write_text("# fine")
    finish_parent_run("FAILED", summary)
    (run,) = tracked.parents()
    assert run.info.status == "FAILED"
    assert [entry.path for entry in tracked.client.list_artifacts(run.info.run_id)] == ["summary.md"]


def test_preflight_refuses_a_server_that_does_not_answer(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with refused("tracking.unreachable", "http://127.0.0.1:9"):
        ensure_parent_run()
