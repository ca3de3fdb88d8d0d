"""The whole rating pipelines in KFP's local runner, from raw reviews to a model that rates and says why."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from latentrec.data import generate_sample
from latentrec.models.rating.placeholder_model import PLACEHOLDER_NOTE
from tests.pipeline.runs import Finished, make_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
QUICK = (
    "pretrain_rating_backbone=tiny gpu_count=0 data_k_core=2 rating_grpo.max_steps=4 "
    "pretrain_rating.max_steps=150 pretrain_rating.measured_prompts=32 rating_grpo.measured_prompts=32 "
    "evaluate.n_resamples=100 evaluate.max_users=20 evaluate.example_users=2"
)
SERVE = """
import json, sys
import mlflow, pandas, pyarrow.parquet
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
keys = pyarrow.parquet.read_table(sys.argv[3])["item_key"].to_pylist()
asked = {"history": [keys[:3], []], "history_ratings": [[5.0, 4.0, 5.0], []], "target": [keys[3], keys[4]]}
print(json.dumps(model.predict(pandas.DataFrame(asked)).to_dict("list")))
"""


@pytest.fixture(scope="module", params=["reczero", "recone"])
def finished(request, tmp_path_factory) -> tuple[str, Finished]:
    reviews, metadata = generate_sample(
        tmp_path_factory.mktemp("shop"), users=60, items=72, events_per_user=15
    )
    params = QUICK + (" traces.samples=160" if request.param == "recone" else "")
    runs = tmp_path_factory.mktemp("runs")
    return request.param, make_run(
        runs, reviews=reviews, metadata=metadata, params=params, system=request.param
    )


def test_run_ends_with_a_registered_model_and_a_report(finished):
    system, run = finished
    assert run.code == 0, run.text[-3000:]
    report = Path(re.search(r"^report +(\S+)", run.text, re.M).group(1)).read_text()
    assert PLACEHOLDER_NOTE in report
    assert f"Reinforcement learning of {system} starts at" in report
    assert re.search(rf"model +models:/{system}/1", run.text), run.text[-3000:]


def test_registered_model_rates_with_reasoning_in_a_fresh_process(finished):
    _, run = finished
    uri = re.search(r"served as (models:/\S+)", run.text).group(1)
    catalogue = next(run.runs.rglob("data-prep/dataset")) / "items.parquet"
    done = subprocess.run(
        [sys.executable, "-c", SERVE, f"sqlite:///{run.runs}/mlflow.db", uri, str(catalogue)],
        cwd=run.runs,
        env={"PYTHONPATH": "", "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HOME": str(run.runs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert list(answer) == ["rating", "reasoning"]
    assert all(1 <= rating <= 5 for rating in answer["rating"])
    assert all(answer["reasoning"])
