"""What Kubernetes reports of a run's pods: why one was lost, and whether a user has terminated the run.

A step whose pod is killed can report nothing itself. The run summary asks the API server instead, with the
service account of its own pod; outside a cluster, or without the permission, there is simply nothing to add.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from latentrec.core.settings import SERVICE_ACCOUNT_DIR_VARIABLE

logger = logging.getLogger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 10
POD_VARIABLE = "KFP_POD_NAME"
"""KFP sets it in every pod of a cluster; nothing else does."""
STEP_LABEL, RUN_LABEL = "latentrec/step", "pipeline/runid"
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"


@dataclass(frozen=True)
class PodFacts:
    """What became of a step's newest pod.

    Attributes:
        reason: why it did not succeed; empty while it runs and where it has.
        ended: UTC seconds when its container ended, where Kubernetes says so.
    """

    reason: str = ""
    ended: float | None = None


class KubernetesApi:
    """The API server as a pod sees it.

    Args:
        address: ``https://host:port``.
        token: bearer token of the pod's service account.
        authority: file of the server's certificate authority; ``None``: the system's.
        namespace: of the pod.
    """

    def __init__(self, address: str, token: str, authority: Path | None, namespace: str) -> None:
        self.address, self.token, self.authority, self.namespace = address, token, authority, namespace

    @classmethod
    def from_pod(cls) -> KubernetesApi | None:
        """The API server of the cluster that this process runs in; ``None`` outside one."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
        folder = Path(os.environ.get(SERVICE_ACCOUNT_DIR_VARIABLE) or ACCOUNT)
        try:
            token = (folder / "token").read_text(encoding="utf-8").strip()
            namespace = (folder / "namespace").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        if not host:
            return None
        shown = f"[{host}]" if ":" in host else host
        authority = folder / "ca.crt"
        scheme = "https" if authority.exists() else "http"
        return cls(
            f"{scheme}://{shown}:{port or 443}", token, authority if authority.exists() else None, namespace
        )

    def get(self, path: str) -> dict[str, Any] | None:
        """One object; ``None`` where it is absent, or we may not see it, or the server does not answer."""
        return self.ask(path)[1]

    def lacks(self, path: str) -> bool:
        """Whether the server says that there is no such object; false where it says nothing."""
        return self.ask(path)[0] == 404

    def patch(self, path: str, body: str, kind: str) -> tuple[int, dict[str, Any] | None]:
        """Change one object.

        Args:
            path: of the object.
            body: the patch.
            kind: its content type.

        Returns:
            HTTP status (0: no answer); the object, or Kubernetes' ``Status`` that says what is wrong.
        """
        return self._request("PATCH", path, body, kind)

    def ask(self, path: str) -> tuple[int, dict[str, Any] | None]:
        """HTTP status (0: no answer) and the object."""
        code, found = self._request("GET", path)
        return code, found if code == 200 else None

    def _request(
        self, method: str, path: str, body: str | None = None, kind: str = ""
    ) -> tuple[int, dict[str, Any] | None]:
        import requests

        headers = {"Authorization": f"Bearer {self.token}"} | ({"Content-Type": kind} if kind else {})
        try:
            with requests.Session() as session:
                session.trust_env = False  # the API server is in the cluster: no proxies
                answer = session.request(
                    method,
                    self.address + path,
                    data=body.encode() if body is not None else None,
                    headers=headers,
                    verify=str(self.authority) if self.authority else True,
                    timeout=TIMEOUT_S,
                )
        except requests.RequestException as error:
            logger.info("Kubernetes could not be asked for %s (%s)", path, type(error).__name__)
            return 0, None
        if answer.status_code not in (200, 201):
            logger.info("Kubernetes answers HTTP %s for %s", answer.status_code, path)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            return answer.status_code if answer.status_code >= 300 else 0, None
        return answer.status_code, found

    def pods_of_run(self, run_id: str) -> dict[str, PodFacts]:
        """What became of the newest pod of each step, by the step's name."""
        selector = quote(f"{RUN_LABEL}={run_id}", safe="")
        found = self.get(f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={selector}")
        newest: dict[str, Mapping[str, Any]] = {}
        for pod in (found or {}).get("items") or []:
            metadata = pod.get("metadata", {})
            step = metadata.get("labels", {}).get(STEP_LABEL)
            if step is None:
                continue
            known = newest.get(step)
            created = metadata.get("creationTimestamp") or ""
            if known is None or created >= (known["metadata"].get("creationTimestamp") or ""):
                newest[step] = pod
        return {step: pod_facts(pod) for step, pod in newest.items()}

    def workflow_of(self, pod: str) -> str | None:
        """Name of the Argo workflow that a pod belongs to."""
        found = self.get(f"/api/v1/namespaces/{self.namespace}/pods/{quote(pod, safe='')}") or {}
        return found.get("metadata", {}).get("labels", {}).get(WORKFLOW_LABEL)

    def is_terminated(self, workflow: str) -> bool:
        """Whether a user has terminated the run: KFP then sets the workflow's deadline to zero."""
        spec = (self.get(self._workflow(workflow)) or {}).get("spec", {})
        return spec.get("activeDeadlineSeconds") == 0 or spec.get("shutdown") in ("Terminate", "Stop")

    def is_over(self, workflow: str) -> bool:
        """Whether a workflow has ended or is gone; false where that cannot be known."""
        code, found = self.ask(self._workflow(workflow))
        phase = (found or {}).get("status", {}).get("phase")
        return code == 404 or phase in ("Succeeded", "Failed", "Error")

    def _workflow(self, name: str) -> str:
        return f"/apis/argoproj.io/v1alpha1/namespaces/{self.namespace}/workflows/{quote(name, safe='')}"


def pod_facts(pod: Mapping[str, Any], container: str = "main") -> PodFacts:
    """Why a pod did not succeed, from its status.

    Args:
        pod: as the API server returns it.
        container: the one that counts; KFP calls it ``main``.
    """
    status = pod.get("status", {})
    main: Mapping[str, Any] = next(
        (entry for entry in status.get("containerStatuses") or [] if entry.get("name") == container), {}
    )
    state = main.get("state") or {}
    ended = state.get("terminated") or {}
    at = _seconds(ended.get("finishedAt"))
    if status.get("reason"):  # Evicted, Preempting, NodeLost, DeadlineExceeded, UnexpectedAdmissionError
        reported = " ".join(str(status.get("message") or "").split())
        return PodFacts(f"{status['reason']}: {reported}" if reported else str(status["reason"]), at)
    if ended.get("reason") == "OOMKilled":
        limit = _memory_limit(pod, container)
        return PodFacts(f"out of memory{f' (limit {limit})' if limit else ''}: OOMKilled", at)
    if ended and ended.get("exitCode") != 0:
        return PodFacts(_exit_reason(ended), at)
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in ("ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError"):
        reported = " ".join(str(waiting.get("message") or "").split())
        return PodFacts(f"its container could not start: {waiting['reason']}: {reported}".rstrip(": "), at)
    if status.get("phase") == "Pending":
        for condition in status.get("conditions") or []:
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return PodFacts(f"no node took its pod: {condition.get('message') or 'no reason given'}", at)
    return PodFacts("", at)


def _exit_reason(ended: Mapping[str, Any]) -> str:
    code = ended.get("exitCode")
    signal = {137: "killed (SIGKILL)", 143: "stopped (SIGTERM)", 139: "crashed (SIGSEGV)"}.get(code or 0)
    return f"its container ended with exit code {code}{f', {signal}' if signal else ''}"


def _memory_limit(pod: Mapping[str, Any], name: str) -> str:
    for container in pod.get("spec", {}).get("containers") or []:
        if container.get("name") == name:
            return str(container.get("resources", {}).get("limits", {}).get("memory", ""))
    return ""


def _seconds(value: Any) -> float | None:
    if not value:
        return None
    return datetime.fromisoformat(str(value)).timestamp()
