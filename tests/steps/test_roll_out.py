"""A promoted version is rolled out by the API server, once, and nothing is where it was not promoted."""

import json
from pathlib import Path

import pytest

from latentrec.registry.model_registry import Registry
from latentrec.steps import roll_out
from latentrec.steps.pods import KubernetesApi
from latentrec.steps.roll_out import apply, run_roll_out_step, wait_until_ready
from tests.errors import refused
from tests.fakes.kubernetes_api import SERVICES, serve_pod
from tests.fixtures.shop import decision

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = Path(__file__).parents[1] / "manifests/schemas/inferenceservice_serving.kserve.io_v1beta1.json"
URI = "models:/latentr3/1"


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """A pretended cluster whose pod this process is."""
    server = serve_pod(monkeypatch, tmp_path)
    monkeypatch.setenv("LATENTREC_IMAGE", "eu.example/r/register:abc")
    monkeypatch.setattr(roll_out.time, "sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def champion(register, monkeypatch):
    """Version 1 of ``latentr3``, promoted; its files lie in a bucket."""
    register(decision(), run_id="run-1")
    monkeypatch.setattr(
        "mlflow.MlflowClient.get_model_version_download_uri", lambda self, name, number: f"gs://b/{number}"
    )


# As kube-controller-manager 1.34 and KServe 0.20 leave them: the new pod crashes, and KServe says Ready.
BEFORE_SERVES = {
    "observedGeneration": 2,
    "replicas": 2,
    "updatedReplicas": 1,
    "readyReplicas": 1,
    "availableReplicas": 1,
    "unavailableReplicas": 1,
}
TAKEN_OVER = {
    "observedGeneration": 2,
    "replicas": 1,
    "updatedReplicas": 1,
    "readyReplicas": 1,
    "availableReplicas": 1,
}


def deployment(status: dict) -> dict:
    return {"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": status}


def standard() -> dict:
    made = service()
    made["metadata"]["annotations"] = {"serving.kserve.io/deploymentMode": "RawDeployment"}
    return made


def service(number: str = "1") -> dict:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "latentr3", "namespace": "kubeflow"},
        "spec": {"predictor": {"number": number}},
    }


def api() -> KubernetesApi:
    found = KubernetesApi.from_pod()
    assert found is not None
    return found


@pytest.mark.parametrize("form", ["image", "mlflow"])
def test_a_promoted_version_is_applied_and_waited_for(cluster, champion, tmp_path, form):
    cluster.ready_after = 3
    assert run_roll_out_step(URI, True, form, "") == "http://latentr3.kubeflow.example.com"
    made = cluster.services["latentr3"]
    given = {key: value for key, value in made.items() if key != "status"}
    del given["metadata"]["generation"]
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(given)] == []
    assert made["metadata"]["annotations"]["latentrec/model"] == URI
    predictor = made["spec"]["predictor"]
    if form == "image":
        assert predictor["containers"][0]["image"] == "eu.example/r/register:abc"
    else:
        assert predictor["model"]["storageUri"] == "gs://b/1"
    (status,) = (tmp_path / "status").rglob("roll_out.json")
    assert json.loads(status.read_text())["details"]["rolled_out"] == URI


def test_without_knative_only_the_mode_standard_is_rolled_out(cluster, champion, capsys):
    cluster.without_knative = True
    with pytest.raises(SystemExit) as left:
        run_roll_out_step(URI, True, "image", "")
    assert left.value.code == 2
    assert "SERVE_MODE=standard" in capsys.readouterr().err
    assert cluster.services == {}
    cluster.deployments["latentr3-predictor"] = deployment(TAKEN_OVER)
    assert run_roll_out_step(URI, True, "image", "", "standard")
    made = cluster.services["latentr3"]
    assert made["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "RawDeployment"
    assert made["spec"]["predictor"]["minReplicas"] == 1


def test_an_api_server_that_does_not_say_whether_it_has_knative_is_believed(cluster, champion):
    cluster.fail_next = [503]
    assert run_roll_out_step(URI, True, "image", "")


def test_applying_again_changes_nothing_and_a_new_version_is_a_new_generation(cluster):
    for number in ("1", "1", "2"):
        apply(api(), service(number))
    assert cluster.services["latentr3"]["metadata"]["generation"] == 2
    assert {call.partition("?")[0] for call in cluster.calls} == {f"PATCH {SERVICES}/latentr3"}


def test_nothing_is_applied_where_the_version_was_not_promoted(cluster, champion):
    assert run_roll_out_step(URI, False, "image", "") == ""
    assert cluster.services == {}


def test_nothing_is_applied_where_a_later_run_has_promoted_another(cluster, champion):
    registry = Registry()
    registry.client.delete_registered_model_alias("latentr3", "champion")
    assert run_roll_out_step(URI, True, "image", "") == ""
    assert cluster.services == {}


@pytest.mark.parametrize(
    ("refusal", "named"),
    [("services is forbidden", ("services is forbidden", "kubectl apply -k manifests/serving"))],
)
def test_what_the_api_server_refuses_is_one_line_with_the_cure(cluster, champion, capsys, refusal, named):
    cluster.refuse = refusal
    with pytest.raises(SystemExit) as left:
        run_roll_out_step(URI, True, "image", "")
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert all(part in error for part in named)


def test_a_cluster_without_kserve_is_named(cluster):
    other = service()
    other["metadata"]["namespace"] = "elsewhere"
    with refused("serving.refused", "latentr3", "KServe"):
        apply(api(), other)


@pytest.mark.parametrize("status", [429, 503])
def test_an_api_server_that_is_away_or_busy_is_no_refusal(cluster, status):
    cluster.fail_next = [status]
    with pytest.raises(ConnectionError):
        apply(api(), service())
    apply(api(), service())


def test_a_version_that_does_not_become_ready_fails_the_step_with_kserves_reason(cluster):
    cluster.ready_after = 10**6
    apply(api(), service())
    with pytest.raises(TimeoutError, match=r"\(Ready: loading the model\); requests.*version before"):
        wait_until_ready(api(), service(), ready_s=0.05, pause_s=0.0)


def test_the_ready_revision_before_does_not_count(cluster):
    apply(api(), service("1"))
    cluster.ready_after = 0
    assert wait_until_ready(api(), service("1"))
    stale = cluster.services["latentr3"]["status"]
    apply(api(), service("2"))
    assert cluster.services["latentr3"]["status"] == stale
    cluster.reconcile = lambda found: None
    with pytest.raises(TimeoutError):
        wait_until_ready(api(), service("2"), ready_s=0.05, pause_s=0.0)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (BEFORE_SERVES, r"\(1 of its new pods are not ready"),
        (TAKEN_OVER | {"replicas": 2}, "0 of its new pods"),
        (TAKEN_OVER | {"observedGeneration": 1}, "not been looked at"),
        ({}, "not been looked at"),
    ],
)
def test_without_knative_the_pods_of_the_version_before_do_not_count(cluster, status, said):
    cluster.ready_after = 0
    apply(api(), standard())
    cluster.deployments["latentr3-predictor"] = deployment(status)
    with pytest.raises(TimeoutError, match=said):
        wait_until_ready(api(), standard(), ready_s=0.05, pause_s=0.0)
    cluster.deployments["latentr3-predictor"] = deployment(TAKEN_OVER)
    assert wait_until_ready(api(), standard())


def test_a_deployment_that_may_not_be_read_is_no_wait_of_half_an_hour(cluster):
    cluster.ready_after = 0
    cluster.hide_deployments = True
    apply(api(), standard())
    with refused("serving.refused", "latentr3", "kubectl apply -k manifests/serving"):
        wait_until_ready(api(), standard())


def test_outside_a_cluster_it_says_what_to_do_instead(champion, monkeypatch, capsys):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SystemExit) as left:
        run_roll_out_step(URI, True, "image", "")
    assert left.value.code == 2
    assert "make serve-manifest" in capsys.readouterr().err
