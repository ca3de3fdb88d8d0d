"""The whole LatentR3 pipeline through KFP's local runner, from raw reviews to a registered model."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from latentrec.data import generate_sample
from latentrec.storage import read_manifest
from tests.pipeline.runs import QUICK, Finished, make_run


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> tuple[Path, Path]:
    return generate_sample(tmp_path_factory.mktemp("shop"), users=60, items=72, events_per_user=15)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shop) -> Finished:
    reviews, metadata = shop
    return make_run(tmp_path_factory.mktemp("runs"), reviews=reviews, metadata=metadata)


def evaluation_of(run: Finished) -> Path:
    return Path(re.search(r"^report +(\S+)/report.html", run.text, re.M).group(1))


@pytest.mark.timeout(600)
def test_run_ends_well_and_prints_a_table_with_every_model(finished):
    assert finished.code == 0, finished.text[-4000:]
    for model in ("popularity", "sasrec", "backbone", "latentr3-sft", "latentr3-stage-2"):
        assert re.search(rf"^{model} +0\.\d{{4}} \[0\.\d{{4}},0\.\d{{4}}\]", finished.text, re.M), model


def test_metrics_hold_the_five_models_with_intervals(finished):
    table = json.loads((evaluation_of(finished) / "metrics.json").read_text())
    assert {"popularity", "sasrec", "backbone", "latentr3-sft", "latentr3-stage-2"} <= set(table)
    for entry in (metrics["ndcg_at_10"] for metrics in table.values()):
        assert entry["low"] <= entry["value"] <= entry["high"]


def test_both_reports_are_outputs_that_the_run_s_page_shows(finished):
    evaluation = evaluation_of(finished)
    for output, file in (("report", "report.html"), ("report_markdown", "report.md")):
        assert (evaluation.parent / output).read_bytes() == (evaluation / file).read_bytes()


def test_backbone_is_the_same_model_without_reasoning(finished):
    models = {
        json.loads(p.read_text())["architecture"]["n_latents"]
        for p in finished.runs.rglob("sft*/model/model.json")
    }
    assert models == {0, 1}


def test_registered_model_serves_in_a_fresh_process(finished):
    uri = re.search(r"served as (models:/\S+)", finished.text).group(1)
    items = read_manifest(next(finished.runs.rglob("data-prep/dataset")), "dataset").counts["items"]
    assert items > 10
    code = (
        "import sys, json, pandas as pd, mlflow, pyarrow.parquet as pq\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model(sys.argv[2])\n"
        "keys = pq.read_table(sys.argv[3])['item_key'].to_pylist()[:2]\n"
        "out = model.predict(pd.DataFrame({'history': [keys, ['nobody-knows-this'], []]}))\n"
        "print(json.dumps({'columns': list(out.columns), 'n': [len(x) for x in out['item_keys']],"
        " 'fallback': [bool(x) for x in out['fallback']]}))\n"
    )
    catalogue = next(finished.runs.rglob("data-prep/dataset")) / "items.parquet"
    run = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{finished.runs}/mlflow.db", uri, str(catalogue)],
        cwd=finished.runs,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    answer = json.loads(run.stdout.strip().splitlines()[-1])
    assert {"item_keys", "titles", "scores"} <= set(answer["columns"])
    assert answer["n"][0] == 10
    assert answer["fallback"] == [False, True, True]


def test_summary_lists_every_step_and_the_verdict(finished):
    summary = next(finished.runs.rglob("run-summary/summary")).read_text()
    for step in ("preflight", "data_prep", "sasrec", "backbone", "sft", "stage_2", "evaluate", "register"):
        assert f"| {step} | ✓ succeeded |" in summary
    assert "Gate: **" in summary


def test_every_run_in_mlflow_hangs_below_the_pipeline_s(finished):
    code = (
        "import sys, mlflow\n"
        "client = mlflow.MlflowClient(sys.argv[1])\n"
        "ids = [e.experiment_id for e in client.search_experiments()]\n"
        "runs = client.search_runs(ids)\n"
        "parents = [r for r in runs if 'mlflow.parentRunId' not in r.data.tags]\n"
        "steps = sorted(r.data.tags['latentrec.step'] for r in runs if 'mlflow.parentRunId' in r.data.tags)\n"
        "print(len(parents), parents[0].info.status, *steps)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{finished.runs}/mlflow.db"],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = "backbone data_prep evaluate popularity preflight register sasrec sft stage_2"
    assert run.stdout.strip().splitlines()[-1] == f"1 FINISHED {expected}"


@pytest.mark.timeout(600)
def test_step_that_fails_stops_the_run_and_is_named(tmp_path, shop):
    """A bad line in the middle passes preflight, which looks at the head only, and stops data preparation."""
    reviews, metadata = shop
    broken = tmp_path / "broken.json"
    lines = reviews.read_text().splitlines()
    lines[500] = lines[500].replace('"overall": ', '"overall": "five", "was": ')
    broken.write_text("\n".join(lines))
    run = make_run(tmp_path / "runs", reviews=broken, metadata=metadata)
    assert run.code == 2
    assert re.search(r"^FAILED +.*data.prep", run.text, re.M)
    assert "line 501" in run.text
    assert "'five'" in run.text
    assert run.artifacts == []
    assert "registered" not in run.text.split("=" * 78)[-1]
    summary = next(run.runs.rglob("run-summary/summary")).read_text()
    assert "**data_prep** met bad input" in summary
    assert "| stage_2 | – |" in summary


def test_preflight_names_everything_that_is_wrong_at_once(tmp_path, shop):
    run = make_run(
        tmp_path / "runs",
        reviews=tmp_path / "nowhere.json",
        metadata=shop[1],
        params=QUICK.replace("backbone=micro", "backbone=no-such-model grpo.num_generations=0"),
    )
    assert run.code == 2
    last = run.text.split("=" * 78)[-1]
    for name in ("nowhere.json", "backbone", "'no-such-model'", "grpo.num_generations", "'0'"):
        assert name in last
    assert run.artifacts == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_finds_no_new_data_stops_after_data_preparation(finished, shop):
    """Last in this file: it runs in the folder of the finished run, whose model has this data."""
    reviews, metadata = shop
    # Another end of the window, as a schedule would give, and yet the same events.
    params = QUICK + " data_only_new=true data_cutoff=2035-01-01"
    again = make_run(finished.runs, reviews=reviews, metadata=metadata, params=params)
    assert again.code == 0, again.text[-4000:]
    assert "nothing new" in again.text
    run_id = re.search(r"^log +\S+/(latentr3-\S+)\.log$", again.text, re.M).group(1)
    steps = {path.stem for path in (finished.runs / "status" / run_id).glob("*.json")}
    assert steps == {"preflight", "data_prep"}
    summaries = [path.read_text() for path in finished.runs.rglob("run-summary/summary")]
    (told,) = [text for text in summaries if run_id in text]
    assert "succeeded" in told.splitlines()[0]
    assert "**Nothing new**" in told
