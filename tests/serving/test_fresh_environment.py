"""The registered model where nothing of ours is installed: own requirements, offline, no pickles."""

from __future__ import annotations

import json
import subprocess

import pytest

QUESTION = """
import json, sys
import mlflow, pandas as pd
assert not [p for p in sys.path if "wt-" in p or p.endswith("latentrec")], sys.path
try:
    import latentrec
    raise SystemExit("latentrec is installed here")
except ImportError:
    pass
model = mlflow.pyfunc.load_model("models:/shop@champion")
frame = pd.DataFrame({"history": [["B0003", "B0004"], ["nope", "B0004"], ["nope"], []]})
answer = model.predict(frame, params={"k": 4})
import latentrec
print(json.dumps({"answer": answer.to_dict("list"), "code": latentrec.__file__,
                  "modules": sorted(m for m in sys.modules if m in ("kfp", "trl", "google.cloud.storage"))}))
"""


@pytest.fixture(scope="module")
def reply(served, bare_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(
        [str(bare_python), "-c", QUESTION],
        cwd=folder,
        env=served.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_loads_and_answers_with_its_own_requirements_only(reply):
    answer = reply["answer"]
    assert list(answer) == [
        "item_keys", "titles", "scores", "unknown_items", "fallback", "model", "version"
    ]  # fmt: skip
    assert [len(keys) for keys in answer["item_keys"]] == [4, 4, 4, 4]


def test_unknown_items_are_counted_and_a_lost_history_gets_popularity(reply):
    answer = reply["answer"]
    assert answer["unknown_items"] == [0, 1, 1, 0]
    assert answer["fallback"] == [False, False, True, True]
    assert answer["item_keys"][2] == answer["item_keys"][3]


def test_runs_the_code_that_was_registered_with_it(reply, served):
    assert reply["code"].startswith(str(served.root)) or "/code/latentrec/" in reply["code"]
    assert reply["modules"] == []


def test_requirements_are_pinned_and_few(served):
    names = [line.split("==")[0] for line in served.requirements]
    assert all("==" in line for line in served.requirements)
    assert set(names) == {"mlflow", "numpy", "pandas", "pyarrow", "tqdm", "torch", "safetensors"}


def test_no_pickle_travels_with_the_model(served):
    assert any(path.suffix == ".safetensors" for path in served.files)
    assert not [
        path for path in served.files if path.suffix in (".pkl", ".pickle", ".pt", ".bin", ".pth", ".pyc")
    ]
