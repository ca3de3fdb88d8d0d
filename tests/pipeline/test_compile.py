"""Compiled pipelines: the same bytes every time, as reviewed, readable by KFP, documented for its UI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp import components as kfp_components

from pipeline.compile import compile_pipelines
from pipeline.dags import PIPELINES, pipeline_of

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[2]
REQUIRED = {"customer_reviews", "model_uri", "users"}
PLAIN = {"IMAGE_REGISTRY": "", "IMAGE_TAG": "", "RELEASE": ""}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "-m", "pipeline.compile", "--output", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, **PLAIN})
    return output


@pytest.mark.parametrize("system", PIPELINES)
def test_two_processes_compile_the_same_bytes(system, compiled, tmp_path):
    (again,) = compile_pipelines(tmp_path, (system,))
    assert again.read_bytes() == (compiled / f"{system}.yaml").read_bytes()


@pytest.mark.parametrize("system", PIPELINES)
def test_is_as_reviewed(system, compiled):
    """After a change that is meant: make golden, and read the difference."""
    golden = (GOLDEN / f"{system}.yaml").read_text(encoding="utf-8")
    assert (compiled / f"{system}.yaml").read_text(encoding="utf-8") == golden


@pytest.mark.parametrize("system", PIPELINES)
def test_parses_as_a_pipeline(system, compiled):
    loaded = kfp_components.load_component_from_file(str(compiled / f"{system}.yaml"))
    assert loaded.name == system.replace("_", "-")
    assert loaded.platform_spec is not None


@pytest.mark.parametrize("system", PIPELINES)
def test_every_parameter_has_help(system):
    for name, entry in pipeline_of(system).component_spec.inputs.items():
        assert entry.description, f"{system}.{name}"
        assert entry.optional or name in REQUIRED, f"{system}.{name} has no default"


@pytest.fixture(scope="module")
def compiled_for_registry(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("registry")
    environment = {**os.environ, **PLAIN, "IMAGE_REGISTRY": "eu.example/r", "IMAGE_TAG": "abc"}
    command = [sys.executable, "-m", "pipeline.compile", "--output", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
    return output


@pytest.mark.parametrize("system", PIPELINES)
def test_images_come_from_registry_and_tag(system, compiled_for_registry):
    spec = next(yaml.safe_load_all((compiled_for_registry / f"{system}.yaml").read_text()))
    images = {entry["container"]["image"] for entry in spec["deploymentSpec"]["executors"].values()}
    assert images
    assert all(image.startswith("eu.example/r/") and image.endswith(":abc") for image in images)
