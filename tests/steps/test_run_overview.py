"""What the pipeline's own MLflow run shows: results beside baselines, verdict, reports, dataset, model."""

import json

import pytest

from latentrec.evaluation.gate_decision import GateDecision
from latentrec.registry.model_registry import RegisteredVersion
from latentrec.steps.run_overview import NOTE, note, results, show_evaluation
from latentrec.steps.step_run import step_run
from latentrec.storage import ArtifactWriter
from latentrec.tracking.run_context import RunContext

CELL = {"value": 0.25, "low": 0.2, "high": 0.3}
RANKING = {
    "sasrec": {"ndcg_at_10": {**CELL, "value": 0.125}, "hr_at_10": CELL, "latency_ms_p50": CELL},
    "latentr3": {"ndcg_at_10": CELL, "hr_at_10": CELL, "latency_ms_p50": CELL},
}
GATE = GateDecision(True, "passed", "better than `sasrec`", "ndcg_at_10", 0.25, challenger_name="latentr3")
VERSION = RegisteredVersion("latentr3", "3", ("champion",), {}, "m-1")


@pytest.fixture
def evaluation(tmp_path):
    GATE.write(tmp_path / "gate.json")
    (tmp_path / "metrics.json").write_text(json.dumps(RANKING))
    return tmp_path


def test_challenger_s_figures_have_plain_names_and_baselines_a_group_each():
    assert results(RANKING, "latentr3") == {
        "ndcg_at_10": 0.25,
        "hr_at_10": 0.25,
        "latency_ms_p50": 0.25,
        "sasrec/ndcg_at_10": 0.125,
        "sasrec/hr_at_10": 0.25,
    }


def test_ratings_show_errors():
    table = {"user + item bias": {"mae": CELL, "rmse": CELL}, "reczero": {"mae": CELL, "rmse": CELL}}
    assert set(results(table, "reczero")) == {"mae", "rmse", "user_item_bias/mae", "user_item_bias/rmse"}


def test_note_tells_verdict_results_and_where_the_model_is(monkeypatch):
    monkeypatch.setenv("LATENTREC_KFP_UI", "https://kfp.example")
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-1")
    text = note(RANKING, GATE, VERSION)
    assert text.startswith("[This run in Kubeflow Pipelines](https://kfp.example/#/runs/details/run-1)")
    assert "Gate: **promote**" in text
    assert "[latentr3 version 3](#/models/latentr3/versions/3), `@champion`" in text
    assert "| **latentr3** | 0.2500 | 0.2500 |" in text
    assert "Registered" not in note(RANKING, GATE, None)


def test_parent_has_figures_note_reports_and_dataset(tracked, evaluation, tmp_path):
    with ArtifactWriter(tmp_path / "dataset", "dataset", {"k_core": 5}) as writer:
        (writer.path / "items.parquet").write_bytes(b"x")
    report = tmp_path / "report.html"
    report.write_text("<p>fine</p>")
    with step_run("evaluate", dataset=tmp_path / "dataset") as run:
        show_evaluation(run, evaluation)
        run.log_report(report, "evaluate.html")
    (parent,) = tracked.parents()
    assert parent.info.run_name == "latentr3 1"
    assert parent.data.metrics["ndcg_at_10"] == 0.25
    assert parent.data.metrics["sasrec/ndcg_at_10"] == 0.125
    assert "Gate: **promote**" in parent.data.tags[NOTE]
    files = {entry.path for entry in tracked.client.list_artifacts(parent.info.run_id)}
    assert files == {"evaluate.html"}
    (used,) = parent.inputs.dataset_inputs
    assert writer.manifest.fingerprint.startswith(used.dataset.digest)
    (step,) = tracked.steps("evaluate")
    assert {entry.path for entry in tracked.client.list_artifacts(step.info.run_id)} == {"report.html"}
    assert "ndcg_at_10" not in step.data.metrics


def test_parent_shows_the_logged_model_among_its_outputs(tracked):
    with step_run("register") as run:
        made = tracked.client.create_logged_model(tracked.steps("register")[0].info.experiment_id)
        run.link_model(made.model_id)
        run.link_model("")
    (parent,) = tracked.parents()
    assert [output.model_id for output in parent.outputs.model_outputs] == [made.model_id]


def test_experiment_opens_in_the_view_of_model_training(tracked):
    with step_run("sft"):
        pass
    experiment = tracked.client.get_experiment(tracked.parents()[0].info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_an_experiment_that_was_there_before_gets_the_view_and_keeps_its_description(tracked):
    note = {"mlflow.note.content": "ours"}
    made = tracked.client.create_experiment(RunContext.from_environment().experiment, tags=note)
    with step_run("sft"):
        pass
    experiment = tracked.client.get_experiment(made)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.tags["mlflow.note.content"] == "ours"


def test_a_command_by_hand_has_no_parent_to_report_to(tracked, evaluation, monkeypatch):
    monkeypatch.delenv("LATENTREC_RUN_ID")
    with step_run("evaluate") as run:
        show_evaluation(run, evaluation)
    assert tracked.parents() == []
    assert [step.info.status for step in tracked.steps("evaluate")] == ["FINISHED"]
