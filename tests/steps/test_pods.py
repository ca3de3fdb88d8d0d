"""Why a pod was lost, from what a (pretended) Kubernetes API server says; nothing outside a cluster."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from latentrec.steps.pods import KubernetesApi, pod_facts

NAMESPACE = "kubeflow"


class ApiServer(ThreadingHTTPServer):
    """Serves ``objects`` by path, to whoever has the token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, dict] = {}


class Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def log_message(self, format: str, *arguments) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        found = self.server.objects.get(parts.path)
        if self.headers["Authorization"] != "Bearer sesame":
            self.send_response(403)
            found = {}
        elif found is None:
            self.send_response(404)
            found = {"kind": "Status"}
        else:
            self.send_response(200)
        selector = parse_qs(parts.query).get("labelSelector")
        if selector and "items" in found:
            key, _, value = selector[0].partition("=")
            found = {"items": [p for p in found["items"] if p["metadata"]["labels"].get(key) == value]}
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())


@pytest.fixture
def api_server(monkeypatch, tmp_path):
    server = ApiServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "token").write_text("sesame\n")
    (tmp_path / "namespace").write_text(NAMESPACE)
    monkeypatch.setenv("LATENTREC_SERVICE_ACCOUNT_DIR", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_address[1]))
    yield server
    server.shutdown()
    server.server_close()


def pod(step: str, *, run: str = "run-1", created: str = "2026-01-01T00:00:00Z", **status) -> dict:
    return {
        "metadata": {
            "name": f"pod-{step}-{created}",
            "creationTimestamp": created,
            "labels": {"latentrec/step": step, "pipeline/runid": run, "workflows.argoproj.io/workflow": "w"},
        },
        "spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "4Gi"}}}]},
        "status": status,
    }


def ended(code: int, reason: str = "Error", at: str = "2026-01-01T00:01:00Z") -> dict:
    state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at}}
    return {
        "phase": "Failed",
        "containerStatuses": [{"name": "wait", "state": {}}, {"name": "main", "state": state}],
    }


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (ended(137, "OOMKilled"), "out of memory (limit 4Gi): OOMKilled"),
        (ended(137), "its container ended with exit code 137, killed (SIGKILL)"),
        (ended(143), "its container ended with exit code 143, stopped (SIGTERM)"),
        (ended(2), "its container ended with exit code 2"),
        (ended(0, "Completed"), ""),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on\nmemory"}, "Evicted: low on memory"),
        ({"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {}}}]}, ""),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient cpu."}
                ],
            },
            "no node took its pod: 0/1 nodes: Insufficient cpu.",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [
                    {
                        "name": "main",
                        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such"}},
                    }
                ],
            },
            "its container could not start: ImagePullBackOff: no such",
        ),
    ],
)
def test_why_a_pod_did_not_succeed(status, reason):
    assert pod_facts(pod("sft", **status)).reason == reason


def test_the_newest_pod_of_each_step_counts(api_server):
    api_server.objects[f"/api/v1/namespaces/{NAMESPACE}/pods"] = {
        "items": [
            pod("sft", created="2026-01-01T00:02:00Z", **ended(0, "Completed")),
            pod("sft", created="2026-01-01T00:01:00Z", **ended(137)),
            pod("grpo", **ended(137, "OOMKilled")),
            pod("grpo", run="run-2", created="2026-01-02T00:00:00Z", **ended(0)),
        ]
    }
    api = KubernetesApi.from_pod()
    assert api is not None
    found = api.pods_of_run("run-1")
    assert {step: facts.reason for step, facts in found.items()} == {
        "sft": "",
        "grpo": "out of memory (limit 4Gi): OOMKilled",
    }
    assert found["grpo"].ended == 1767225660.0


@pytest.mark.parametrize(
    ("workflow", "terminated", "over"),
    [
        ({"spec": {}, "status": {"phase": "Running"}}, False, False),
        ({"spec": {"activeDeadlineSeconds": 0}, "status": {"phase": "Running"}}, True, False),
        ({"spec": {"shutdown": "Terminate"}, "status": {"phase": "Failed"}}, True, True),
        ({"spec": {"activeDeadlineSeconds": 86400}, "status": {"phase": "Succeeded"}}, False, True),
        (None, False, True),
    ],
)
def test_a_workflow_says_whether_it_was_terminated_and_whether_it_is_over(
    api_server, workflow, terminated, over
):
    if workflow is not None:
        path = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/workflows/latentr3-abc"
        api_server.objects[path] = workflow
    api = KubernetesApi.from_pod()
    assert api is not None
    assert (api.is_terminated("latentr3-abc"), api.is_over("latentr3-abc")) == (terminated, over)


def test_a_pod_knows_its_workflow(api_server):
    api_server.objects[f"/api/v1/namespaces/{NAMESPACE}/pods/p"] = pod("preflight")
    api = KubernetesApi.from_pod()
    assert api is not None
    assert api.workflow_of("p") == "w"
    assert api.workflow_of("other") is None


def test_without_the_permission_nothing_is_known_and_nothing_fails(api_server, tmp_path):
    (tmp_path / "token").write_text("stolen")
    api = KubernetesApi.from_pod()
    assert api is not None
    assert api.pods_of_run("run-1") == {}
    assert not api.is_over("w"), "refused is not gone"


def test_outside_a_cluster_there_is_nobody_to_ask(monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTREC_SERVICE_ACCOUNT_DIR", str(tmp_path))
    assert KubernetesApi.from_pod() is None
