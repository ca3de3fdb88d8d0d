"""Where an experiment's artifacts go, from the settings of an installation."""

from __future__ import annotations

import pytest

from latentrec.tracking.run_context import artifact_location, check_artifacts
from tests.errors import refused

SERVER = "http://mlflow.latentrec.svc.cluster.local:5000"


@pytest.mark.parametrize(
    "root", ["mlflow-artifacts:/", "mlflow-artifacts:/team", "mlflow-artifacts://host/x", ""]
)
def test_artifacts_that_the_server_hands_out_are_left_to_it(monkeypatch, root):
    """Seen on a real KFP: taken for a path, every registered model stayed in its pod's /tmp."""
    monkeypatch.setenv("LATENTREC_ARTIFACT_ROOT", root)
    assert artifact_location(SERVER) is None


def test_other_roots_are_the_experiment_s(monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTREC_ARTIFACT_ROOT", "gs://bucket/mlflow")
    assert artifact_location(SERVER) == "gs://bucket/mlflow"
    monkeypatch.setenv("LATENTREC_ARTIFACT_ROOT", str(tmp_path))
    assert artifact_location(SERVER) == tmp_path.as_uri()


@pytest.mark.parametrize(
    "artifacts", ["file:///tmp/mlflow-artifacts%3A/3f/artifacts", "/tmp/mlruns/1", "./mlruns"]
)
def test_an_experiment_of_a_server_that_writes_into_the_pod_is_refused(artifacts):
    with refused("tracking.local_artifacts", "LATENTREC_MLFLOW_EXPERIMENT_NAME"):
        check_artifacts(SERVER, artifacts)


@pytest.mark.parametrize(
    ("tracking", "artifacts"),
    [
        (SERVER, "mlflow-artifacts:/1/3f/artifacts"),
        (SERVER, "gs://bucket/mlflow/3f/artifacts"),
        ("sqlite:////runs/mlflow.db", "file:///runs/mlartifacts/3f/artifacts"),
    ],
)
def test_every_place_that_is_reached_again_is_fine(tracking, artifacts):
    assert check_artifacts(tracking, artifacts) == artifacts
