"""``make serve-manifest``: a registered version as a KServe InferenceService, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from latentrec.registry.inference_service import ServeOptions, service_name
from latentrec.registry.model_registry import RegisteredVersion, Registry
from pipeline.serve_manifest import inference_service, main, write_manifests
from tests.errors import refused
from tests.fixtures.shop import decision

jsonschema = pytest.importorskip("jsonschema")

SCHEMA = Path(__file__).parents[1] / "manifests/schemas/inferenceservice_serving.kserve.io_v1beta1.json"
CHECK = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
PLACE = "gs://bucket/mlflow/1/models/m-1/artifacts"
IMAGE, MLFLOW = ServeOptions(), ServeOptions(form="mlflow")


def version(
    name="latentr3-sample", number="3", system="latentr3", aliases=("champion",)
) -> RegisteredVersion:
    return RegisteredVersion(name, number, aliases, {"model.system": system, "model.fingerprint": "f1"})


def container(service: dict) -> dict:
    predictor = service["spec"]["predictor"]
    return predictor["model"] if "model" in predictor else predictor["containers"][0]


@pytest.mark.parametrize("options", [IMAGE, MLFLOW], ids=["image", "mlflow"])
@pytest.mark.parametrize("percent", [0, 10])
@pytest.mark.parametrize("name", ["latentr3-sample", "Shop. a" * 20, "日本"])
def test_every_manifest_fits_kserves_schema(options, percent, name):
    service = inference_service(version(name), PLACE, options, canary_percent=percent, stable=version(name))
    assert [error.message for error in CHECK.iter_errors(service)] == []


def test_the_schema_finds_a_misspelt_field():
    service = inference_service(version(), PLACE, IMAGE)
    service["spec"]["predictor"]["minReplica"] = 0
    assert any("minReplica" in error.message for error in CHECK.iter_errors(service))


def test_mlflow_form_hands_kserve_the_files_in_object_storage():
    service = inference_service(version(), PLACE, MLFLOW)
    assert container(service)["modelFormat"] == {"name": "mlflow"}
    assert container(service)["storageUri"] == PLACE


def test_image_form_serves_the_resolved_version_and_is_ready_once_warm(monkeypatch):
    monkeypatch.setenv("IMAGE_REGISTRY", "europe-docker.pkg.dev/p/r")
    monkeypatch.setenv("IMAGE_TAG", "abc123")
    served = container(inference_service(version(), PLACE, IMAGE))
    assert served["image"] == "europe-docker.pkg.dev/p/r/register:abc123"
    assert "--model-uri=models:/latentr3-sample/3" in served["args"]
    assert served["readinessProbe"]["httpGet"] == {"path": "/ping", "port": 8080}
    uri = next(entry for entry in served["env"] if entry["name"] == "MLFLOW_TRACKING_URI")
    assert uri["valueFrom"]["configMapKeyRef"]["key"] == "LATENTREC_MLFLOW_TRACKING_URI"


def test_the_command_line_is_one_that_mlflow_takes():
    from mlflow.models.cli import serve

    served = container(inference_service(version(), PLACE, IMAGE))
    assert served["command"] == ["mlflow", "models", "serve"]
    context = serve.make_context("serve", list(served["args"]))
    given = {name: context.params[name] for name in ("model_uri", "port", "host", "env_manager")}
    assert given == {
        "model_uri": "models:/latentr3-sample/3",
        "port": 8080,
        "host": "0.0.0.0",
        "env_manager": "local",
    }


@pytest.mark.parametrize("options", [IMAGE, MLFLOW], ids=["image", "mlflow"])
def test_pods_scale_to_none_and_are_restricted_as_our_others(options):
    service = inference_service(version(), PLACE, options)
    predictor = service["spec"]["predictor"]
    assert predictor["minReplicas"] == 0
    assert predictor["automountServiceAccountToken"] is False
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Serverless"
    security = container(service)["securityContext"]
    assert security["runAsNonRoot"]
    assert security["readOnlyRootFilesystem"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {mount["mountPath"] for mount in container(service)["volumeMounts"]} == {"/tmp"}


@pytest.mark.parametrize("form", ["image", "mlflow"])
def test_without_knative_one_pod_stays_and_nothing_is_knatives(form):
    service = inference_service(version(), PLACE, ServeOptions(form=form, mode="standard"))
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "RawDeployment"
    assert service["spec"]["predictor"]["minReplicas"] == 1
    assert "knative" not in json.dumps(service)
    assert [error.message for error in CHECK.iter_errors(service)] == []
    with refused("serving.no_canary", "SERVE_CANARY", "10", "Knative"):
        inference_service(version(), PLACE, ServeOptions(form=form, mode="standard"), canary_percent=10)


def test_size_follows_the_system_unless_it_is_given():
    def size(system, options=IMAGE):
        resources = container(inference_service(version(system=system), PLACE, options))["resources"]
        assert resources["requests"] == resources["limits"]
        return resources["limits"]

    assert size("sasrec") == {"cpu": "1", "memory": "2Gi"}
    assert size("latentr3") == {"cpu": "4", "memory": "16Gi"}
    assert size("reczero") == {"cpu": "8", "memory": "48Gi"}
    assert size("latentr3", ServeOptions(cpu="500m", memory="3Gi")) == {"cpu": "500m", "memory": "3Gi"}


def test_names_are_dns_labels_and_never_the_same_for_two_models():
    names = ["shop-a", "shop a", "Shop-a", "shop_a", "1shop", "日本", "日本語", "x" * 100, "x" * 101]
    services = [service_name(name) for name in names]
    assert services[0] == "shop-a"
    assert len(set(services)) == len(names)
    assert all(len(one) <= 40 and one.isascii() and one[0].isalpha() for one in services)


@pytest.fixture
def registry(register, monkeypatch):
    """Version 1 is champion, version 2 challenger; their files lie in a bucket."""
    register(decision())
    register(decision(promote=False, reason="worse"))
    found = Registry()
    monkeypatch.setattr(
        found.client, "get_model_version_download_uri", lambda name, number: f"gs://b/{number}"
    )
    return found


def test_alias_becomes_the_version_and_the_canary_is_the_challenger(registry, tmp_path):
    paths = write_manifests(registry, "models:/latentr3@champion", tmp_path, MLFLOW, 10)
    assert [path.name for path in paths] == ["latentr3.yaml", "latentr3-canary.yaml"]
    stable, canary = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths)
    assert stable["metadata"]["name"] == canary["metadata"]["name"]
    assert container(stable)["storageUri"] == "gs://b/1"
    assert container(canary)["storageUri"] == "gs://b/2"
    assert "canaryTrafficPercent" not in stable["spec"]["predictor"]
    assert canary["spec"]["predictor"]["canaryTrafficPercent"] == 10
    assert stable["metadata"]["annotations"]["latentrec/model"] == "models:/latentr3/1"
    assert stable["metadata"]["annotations"]["latentrec/aliases"] == "champion"
    assert canary["metadata"]["annotations"]["latentrec/model"] == "models:/latentr3/2"
    assert canary["metadata"]["annotations"]["latentrec/stable-model"] == "models:/latentr3/1"
    assert not any(list(CHECK.iter_errors(service)) for service in (stable, canary))


def test_a_canary_needs_a_challenger_that_is_another_version(registry, tmp_path):
    with refused("serving.no_canary", "latentr3", "2"):
        write_manifests(registry, "models:/latentr3@challenger", tmp_path / "out", MLFLOW, 10)
    with refused("config.bad_value", "SERVE_CANARY", "101"):
        write_manifests(registry, "models:/latentr3@champion", tmp_path / "out", MLFLOW, 101)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "code", "named"),
    [
        ({"MODEL": ""}, "config.missing_value", ("MODEL",)),
        ({"MODEL": "latentr3"}, "registry.bad_uri", ("'latentr3'", "models:/NAME@ALIAS")),
        ({"MODEL": "models:/none@champion"}, "registry.not_found", ("models:/none@champion", "latentr3")),
        ({"MODEL": "models:/latentr3@best"}, "registry.not_found", ("challenger, champion",)),
        ({"MODEL": "models:/latentr3/9"}, "registry.unknown_version", ("latentr3", "9", "1")),
        ({"MODEL": "models:/latentr3@champion"}, "serving.unreadable_location", ("file://", "gs://")),
        (
            {"MODEL": "models:/latentr3@champion", "FORMAT": "image"},
            "serving.local_registry",
            ("MLFLOW_TRACKING_URI",),
        ),
        ({"FORMAT": "onnx"}, "config.bad_value", ("FORMAT", "'onnx'", "image or mlflow")),
        ({"SERVE_MODE": "raw"}, "config.bad_value", ("SERVE_MODE", "'raw'", "knative or standard")),
        ({"SERVE_CANARY": "ten"}, "config.bad_value", ("SERVE_CANARY", "'ten'")),
        ({"SERVE_MAX_REPLICAS": "0"}, "config.bad_value", ("SERVE_MAX_REPLICAS", "0")),
        ({"SERVE_MEMORY": "16 GB"}, "config.bad_value", ("SERVE_MEMORY", "'16 GB'")),
    ],
)
def test_refusals_say_why_and_write_nothing(register, monkeypatch, tmp_path, given, code, named):
    register(decision())
    for name, value in {"MODEL": "models:/latentr3@champion", "FORMAT": "mlflow", **given}.items():
        monkeypatch.setenv(name, value)
    with refused(code, *named) as found:
        main(["--output", str(tmp_path / "out")])
    assert "\n" not in str(found.value)
    assert not (tmp_path / "out").exists()


def test_the_command_exits_2_with_one_line(tracked, tmp_path):
    environment = {
        **os.environ,
        "MODEL": "models:/none@champion",
        "FORMAT": "mlflow",
        "LATENTREC_LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "pipeline.serve_manifest", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = map(json.loads, done.stderr.splitlines())
    assert line["error_code"] == "registry.not_found"
    assert "models:/none@champion" in line["message"]
