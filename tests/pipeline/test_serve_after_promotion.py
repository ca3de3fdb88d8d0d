"""A pipeline compiled with ``SERVE_AFTER_PROMOTION`` rolls promoted versions out; without it nothing does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.dags import SYSTEMS
from tests.fakes.kfp.compiled import Pipeline

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {"IMAGE_REGISTRY": "", "IMAGE_TAG": "", "RELEASE": ""}


def compiled(tmp_path: Path, form: str, mode: str = "standard") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipeline.compile", "--output", str(tmp_path)]
    environment = {**os.environ, **PLAIN, "SERVE_AFTER_PROMOTION": form, "SERVE_NAMESPACE": "shop"}
    environment["SERVE_MODE"] = mode
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_last_step_rolls_out_what_was_promoted(tmp_path):
    done = compiled(tmp_path, "mlflow")
    assert done.returncode == 0, done.stderr
    for system in SYSTEMS:
        pipeline = Pipeline(tmp_path / f"{system}.yaml")
        assert "roll_out" in set(pipeline.steps())
        assert "roll_out" not in set(Pipeline(ROOT / f"tests/pipeline/golden/{system}.yaml").steps())
        dags = [pipeline.spec["root"], *pipeline.spec["components"].values()]
        tasks = {name: task for dag in dags for name, task in dag.get("dag", {}).get("tasks", {}).items()}
        given = tasks["roll-out"]["inputs"]["parameters"]
        for name in ("uri", "promoted"):
            made = given[name]["taskOutputParameter"]
            assert made == {"producerTask": "register", "outputParameterKey": name}
        constants = {name: given[name]["runtimeValue"]["constant"] for name in ("form", "namespace", "mode")}
        assert constants == {"form": "mlflow", "namespace": "shop", "mode": "standard"}
        (label,) = [one for one in pipeline.platform if pipeline.step_of(one) == "roll_out"]
        variables = {one["name"]: one["value"] for one in pipeline.container(label)["env"]}
        assert variables["LATENTREC_IMAGE"] == pipeline.container(label)["image"]
        assert not tasks["roll-out"]["cachingOptions"].get("enableCache")


@pytest.mark.parametrize("form", ["kserve", "yes"])
def test_another_form_is_refused(tmp_path, form):
    done = compiled(tmp_path, form)
    assert done.returncode == 2
    assert "SERVE_AFTER_PROMOTION" in done.stderr
    assert not list(tmp_path.iterdir())


def test_another_mode_is_refused(tmp_path):
    done = compiled(tmp_path, "image", mode="serverless")
    assert done.returncode == 2
    assert "SERVE_MODE" in done.stderr
    assert not list(tmp_path.iterdir())
