"""A Kubernetes API server with TrainJobs, pods and logs, answering as a real one does.

The answers were recorded from kube-apiserver 1.34 with Kubeflow Trainer 2.3 and JobSet: conflicts, refusals,
the expired watch, the statuses of a job that loses a node, is restarted, completes, fails.
"""

from __future__ import annotations

import copy
import json
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/kubeflow/trainjobs"
PODS = "/api/v1/namespaces/kubeflow/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/kubeflow/deployments"
SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/kubeflow/inferenceservices"
WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/kubeflow/workflows"


class KubernetesServer(ThreadingHTTPServer):
    """``jobs`` and ``pods`` by name; what a test changes by the methods below, watches hear of."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token = "sesame"
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, list[str]] = {}
        self.services: dict[str, dict[str, Any]] = {}
        self.ready_after = 1
        self.deployments: dict[str, dict[str, Any]] = {}
        self.hide_deployments = False
        self.workflows: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.fail_next: list[int] = []
        self.refuse: str | None = None
        self.without_trainer = False
        self.without_knative = False
        self.expire_watches = 0
        self.break_watches = 0
        self.version = 100
        self.watchers: list[queue.Queue] = []
        self.lock = threading.RLock()

    # What a controller would do

    def set_status(self, name: str, status: dict[str, Any]) -> None:
        with self.lock:
            self.jobs[name]["status"] = status
            self.tell("MODIFIED", self.jobs[name])

    def running(self, name: str) -> None:
        self.set_status(name, {"jobsStatus": [{"name": "node", "active": 1}]})

    def complete(self, name: str) -> None:
        found = {"type": "Complete", "status": "True", "reason": "AllJobsCompleted"}
        self.set_status(name, {"conditions": [{**found, "message": "jobset completed successfully"}]})

    def failed(self, name: str) -> None:
        message = f"applying FailJobSet failure policy action (first failed job: {name}-node-0)"
        found = {"type": "Failed", "status": "True", "reason": "FailJobSetFailurePolicyAction"}
        self.set_status(name, {"conditions": [{**found, "message": message}]})

    def add_pod(
        self,
        job: str,
        node: int,
        name: str,
        phase: str = "Running",
        *,
        code: int | None = None,
        message: str = "",
    ) -> None:
        state: dict[str, Any] = {"running": {}} if code is None else {}
        if code is not None:
            reason = "Completed" if code == 0 else "OOMKilled" if message.startswith("OOM") else "Error"
            left = message.removeprefix("OOM").strip()
            text = {"message": left} if left else {}
            ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": ended, **text}}
        with self.lock:
            self.version += 1
            created = f"2026-11-27T22:{self.version // 60 % 60:02}:{self.version % 60:02}Z"
            self.pods[name] = {
                "metadata": {
                    "name": name,
                    "uid": f"uid-{name}",
                    "creationTimestamp": created,
                    "labels": {"jobset.sigs.k8s.io/jobset-name": job},
                    "annotations": {"batch.kubernetes.io/job-completion-index": str(node)},
                },
                "spec": {"containers": [{"name": "node", "resources": {"limits": {"memory": "32Gi"}}}]},
                "status": {"phase": phase, "containerStatuses": [{"name": "node", "state": state}]},
            }

    def reconcile(self, service: dict[str, Any]) -> None:
        """What KServe says of a service; ready the ``ready_after``-th time it is asked for."""
        self.ready_after -= 1
        ready = "True" if self.ready_after < 0 else "False"
        reason = {} if ready == "True" else {"reason": "RevisionMissing", "message": "loading the model"}
        service["status"] = {
            "observedGeneration": service["metadata"]["generation"],
            "url": f"http://{service['metadata']['name']}.kubeflow.example.com",
            "conditions": [
                {"type": "Ready", "status": ready, **reason},
                {"type": "Stopped", "status": "False"},
            ],
        }

    def tell(self, kind: str, job: dict[str, Any]) -> None:
        with self.lock:
            self.version += 1
            job["metadata"]["resourceVersion"] = str(self.version)
            for watcher in self.watchers:
                watcher.put({"type": kind, "object": copy.deepcopy(job)})


class Handler(BaseHTTPRequestHandler):
    """One request to the server's objects."""

    protocol_version = "HTTP/1.1"
    server: KubernetesServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep test output clean."""

    def _begin(self) -> tuple[str, dict[str, str]] | None:
        parts = urlsplit(self.path)
        self.server.calls.append(f"{self.command} {self.path}")
        if self.server.fail_next:
            self._status(self.server.fail_next.pop(0), "InternalError", "etcdserver: request timed out")
            return None
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._status(401, "Unauthorized", "Unauthorized")
            return None
        if self.server.without_trainer and parts.path.startswith("/apis/trainer"):
            self._send(404, b"404 page not found\n", "text/plain")
            return None
        return parts.path, {key: values[0] for key, values in parse_qs(parts.query).items()}

    def do_GET(self) -> None:
        begun = self._begin()
        if begun is None:
            return
        path, query = begun
        if path == JOBS:
            self._watch(query) if query.get("watch") else self._list(self.server.jobs, query)
        elif path == PODS:
            self._list(self.server.pods, query)
        elif path == "/apis/serving.knative.dev/v1" and not self.server.without_knative:
            self._json(200, {"kind": "APIResourceList", "groupVersion": "serving.knative.dev/v1"})
        elif path.endswith("/log"):
            self._log(path.split("/")[-2])
        else:
            folder, _, name = path.rpartition("/")
            kept = {JOBS: self.server.jobs, PODS: self.server.pods, WORKFLOWS: self.server.workflows}
            kept[SERVICES] = self.server.services
            kept[DEPLOYMENTS] = self.server.deployments
            if folder == DEPLOYMENTS and self.server.hide_deployments:
                self._status(403, "Forbidden", f'deployments.apps "{name}" is forbidden')
                return
            found = kept.get(folder, {}).get(name)
            if folder == SERVICES and found is not None:
                self.server.reconcile(found)
            if found is None:
                self._not_found(name)
            else:
                self._json(200, found)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        begun = self._begin()
        if begun is None:
            return
        name = body["metadata"]["name"]
        if self.server.refuse:
            self._status(403, "Forbidden", self.server.refuse)
        elif name in self.server.jobs:
            self._status(409, "AlreadyExists", f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        else:
            body["metadata"] |= {"uid": f"uid-{name}", "resourceVersion": str(self.server.version)}
            if begun[1].get("dryRun") != "All":
                self.server.jobs[name] = body
                self.server.tell("ADDED", body)
            self._json(201, body)

    def do_PATCH(self) -> None:
        """Server-side apply of a service: made, or changed where it differs; a generation a change."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        begun = self._begin()
        if begun is None:
            return
        folder, _, name = begun[0].rpartition("/")
        applied = self.headers["Content-Type"] == "application/apply-patch+yaml"
        if folder != SERVICES:
            self._send(404, b"404 page not found\n", "text/plain")
        elif not applied or not begun[1].get("fieldManager"):
            self._status(415, "UnsupportedMediaType", "the patch is none that this server knows")
        elif self.server.refuse:
            self._status(403, "Forbidden", self.server.refuse)
        else:
            before = self.server.services.get(name)
            generation = before["metadata"]["generation"] if before else 0
            changed = before is None or before["spec"] != body["spec"]
            body["metadata"]["generation"] = generation + changed
            body["status"] = before["status"] if before else {}
            self.server.services[name] = body
            self._json(200 if before else 201, body)

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        begun = self._begin()
        if begun is None:
            return
        name = begun[0].rpartition("/")[2]
        job = self.server.jobs.pop(name, None)
        if job is None:
            self._not_found(name)
            return
        self.server.tell("DELETED", job)
        self._json(200, {"kind": "Status", "status": "Success"})

    def _list(self, kept: dict[str, dict[str, Any]], query: dict[str, str]) -> None:
        key, _, value = query.get("labelSelector", "").partition("=")
        found = [
            one for one in kept.values() if not key or one["metadata"].get("labels", {}).get(key) == value
        ]
        self._json(200, {"kind": "List", "metadata": {}, "items": found})

    def _watch(self, query: dict[str, str]) -> None:
        self._chunks("application/json")
        if self.server.expire_watches:
            self.server.expire_watches -= 1
            gone = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410}
            gone["message"] = f"too old resource version: {query['resourceVersion']} ({self.server.version})"
            self._event({"type": "ERROR", "object": gone})
            self._last()
            return
        if self.server.break_watches:
            self.server.break_watches -= 1
            self.connection.close()
            self.close_connection = True
            return
        heard: queue.Queue = queue.Queue()
        name = query["fieldSelector"].partition("=")[2]
        with self.server.lock:
            self.server.watchers.append(heard)
            job = self.server.jobs.get(name)
            if job and int(job["metadata"]["resourceVersion"]) > int(query["resourceVersion"]):
                heard.put({"type": "MODIFIED", "object": copy.deepcopy(job)})
        bookmark = {"metadata": {"resourceVersion": str(self.server.version)}}
        self._event({"type": "BOOKMARK", "object": {"kind": "TrainJob", **bookmark}})
        until = time.monotonic() + float(query["timeoutSeconds"])
        try:
            while (left := until - time.monotonic()) > 0:
                try:
                    event = heard.get(timeout=min(left, 0.05))
                except queue.Empty:
                    continue
                if event["object"]["metadata"]["name"] == name:
                    self._event(event)
            self._last()
        except OSError:
            self.close_connection = True
        finally:
            self.server.watchers.remove(heard)

    def _log(self, pod: str) -> None:
        """What the pod has logged by now; a follower that wants more asks again (as after a broken line)."""
        self._chunks("text/plain")
        for line in list(self.server.logs.get(pod, [])):
            self._chunk(f"{line}\n".encode())
        self._last()

    def _not_found(self, name: str) -> None:
        self._status(404, "NotFound", f'trainjobs.trainer.kubeflow.org "{name}" not found')

    def _status(self, code: int, reason: str, message: str) -> None:
        self._json(
            code, {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}
        )

    def _json(self, code: int, body: dict[str, Any]) -> None:
        self._send(code, json.dumps(body).encode(), "application/json")

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunks(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _event(self, event: dict[str, Any]) -> None:
        self._chunk(json.dumps(event).encode() + b"\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _last(self) -> None:
        self.wfile.write(b"0\r\n\r\n")


def serve_pod(monkeypatch: Any, tmp_path: Path) -> KubernetesServer:
    """A running server, and the environment and account of a pod of its cluster; the caller shuts it down."""
    server = KubernetesServer()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("sesame\n")
    (account / "namespace").write_text("kubeflow")
    monkeypatch.setenv("LATENTREC_SERVICE_ACCOUNT_DIR", str(account))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_address[1]))
    return server
