"""The main system through the registry: a LatentR³ model in an environment of its own requirements."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.fixtures.shop import decision, write_evaluation
from tests.fixtures.tiny_latentr3 import make_latentr3

QUESTION = """
import json, threading, mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/latentr3@champion")
def ask(history, **params):
    return model.predict(pd.DataFrame({"history": history}), params=params)
histories = [[f"B{i:04d}", f"B{i + 1:04d}"] for i in range(8)]
alone = [ask([h], k=5)["item_keys"][0] for h in histories]
together = ask(histories, k=5)["item_keys"].tolist()
threaded = [None] * 8
def run(i): threaded[i] = ask([histories[i]], k=5)["item_keys"][0]
threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
long = ask([histories[0]], k=25)
print(json.dumps({"alone": alone, "together": together, "threaded": threaded,
                  "long": len(set(long["item_keys"][0])), "own": long["item_keys"][0]}))
"""


@pytest.fixture(scope="module")
def reply(served, bare_python_for, tmp_path_factory):
    from latentrec.registry.registration import register_model

    root = tmp_path_factory.mktemp("latentr3")
    model = make_latentr3(root / "model", served.shop.dataset)
    evaluation = write_evaluation(root / "evaluation", model, decision())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", served.uri)
        patch.delenv("LATENTREC_RUN_ID", raising=False)
        register_model(model_dir=model, evaluation_dir=evaluation, name="latentr3")
    files = (served.root / "mlartifacts").rglob("requirements.txt")
    (requirements,) = [path for path in files if "transformers" in path.read_text()]
    python = bare_python_for(requirements.read_text().split())
    done = subprocess.run(
        [str(python), "-c", QUESTION],
        cwd=root,
        env=served.environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_one_request_a_batch_and_concurrent_requests_agree(reply):
    assert reply["alone"] == reply["together"] == reply["threaded"]
    assert all(len(keys) == 5 for keys in reply["alone"])


def test_a_list_longer_than_the_beams_is_filled(reply):
    assert reply["long"] == 25
    assert not {"B0000", "B0001"} & set(reply["own"])
