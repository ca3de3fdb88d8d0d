"""Rolls a promoted version out: applies its ``InferenceService`` and waits until KServe says that it serves.

Off by default. The step's account needs ``manifests/serving``; nothing else of the cluster is touched.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from latentrec.core import UserError
from latentrec.core.retry import PASSING
from latentrec.core.settings import IMAGE_VARIABLE
from latentrec.core.text import printable
from latentrec.registry.inference_service import (
    API_VERSION,
    GROUP,
    MODE_ANNOTATION,
    MODES,
    PLURAL,
    ServeOptions,
    service_of,
)
from latentrec.registry.model_registry import CHAMPION, Registry
from latentrec.steps.pods import KubernetesApi
from latentrec.steps.status import exit_code_on_error
from latentrec.steps.step_run import step_run

logger = logging.getLogger(__name__)

FIELD_MANAGER = "latentrec"
READY_S = 1800.0
"""How long a new revision may take: as long as Knative gives it (``progress-deadline``)."""
KNATIVE = "/apis/serving.knative.dev/v1"
"""Every account may ask which interfaces a cluster has."""
_CURES = {
    403: "; the step's account needs: kubectl apply -k manifests/serving",
    404: "; is KServe installed, and does the namespace exist?",
}


def run_roll_out_step(
    uri: str, promoted: bool, form: str, namespace: str, mode: str = ServeOptions.mode
) -> str:
    """The body of the roll_out component; returns the address that KServe gives the service.

    Args:
        uri: the version that was registered, ``models:/NAME/VERSION``.
        promoted: whether it is the champion; if not, nothing is rolled out.
        form: ``image`` or ``mlflow``, as of ``make serve-manifest``.
        namespace: of the service; empty: the step's own.
        mode: ``knative`` or ``standard``.
    """
    with exit_code_on_error(), step_run("roll_out") as run:
        if not promoted:
            run.status.details["rolled_out"] = f"nothing: {uri} was not promoted"
            return ""
        api = KubernetesApi.from_pod()
        if api is None:
            raise UserError(
                f"{uri} cannot be rolled out from here: no Kubernetes; apply what make serve-manifest writes",
                code="serving.no_cluster",
            )
        options = ServeOptions(form=form, namespace=namespace or api.namespace, mode=mode)
        service = champion_service(Registry(), uri, options)
        if service is None:
            run.status.details["rolled_out"] = f"nothing: another version than {uri} is the champion by now"
            return ""
        check_mode(api, mode)
        apply(api, service)
        address = wait_until_ready(api, service)
        run.status.details |= {"rolled_out": uri, "address": address}
        run.set_tags({"rolled_out": uri}, parent=True)
    return address


def champion_service(registry: Registry, uri: str, options: ServeOptions) -> dict[str, Any] | None:
    """The service of a version; ``None`` where a later run has promoted another.

    Raises:
        UserError: no such version, or KServe cannot read its files.
    """
    version = registry.resolve(uri)
    champion = registry.by_alias(version.name, CHAMPION)
    if champion is None or champion.version != version.version:
        return None
    place = str(registry.client.get_model_version_download_uri(version.name, version.version))
    return service_of(champion, place, options, image=os.environ.get(IMAGE_VARIABLE, ""))


def check_mode(api: KubernetesApi, mode: str) -> None:
    """Stop where KServe could never serve in a mode: it only notes that in an event, which we may not read.

    Raises:
        UserError: the cluster has no Knative.
    """
    if mode == "knative" and api.lacks(KNATIVE):
        raise UserError(
            "the cluster has no Knative Serving, which the mode knative needs; install it, or roll out "
            "with SERVE_MODE=standard (no scaling to zero)",
            code="serving.no_knative",
        )


def apply(api: KubernetesApi, service: Mapping[str, Any]) -> None:
    """Make the service, or change what is ours of it (server-side apply); doing it again changes nothing.

    Raises:
        UserError: the API server refuses it.
        ConnectionError: the API server does not answer; the step may be tried again.
    """
    path = f"{_path(service)}?fieldManager={FIELD_MANAGER}&force=true"
    code, answer = api.patch(path, json.dumps(service), "application/apply-patch+yaml")
    if code == 0 or code in PASSING:
        raise ConnectionError(f"the API server does not answer (HTTP {code or 'none'}); try again later")
    if code not in (200, 201):
        reason = printable(str((answer or {}).get("message", "")))[:300] or f"HTTP {code}"
        raise UserError(
            f"Kubernetes refuses the InferenceService {service['metadata']['name']} ({reason})"
            f"{_CURES.get(code, '')}",
            code="serving.refused",
        )


def wait_until_ready(
    api: KubernetesApi, service: Mapping[str, Any], *, ready_s: float = READY_S, pause_s: float = 5.0
) -> str:
    """Wait until the service serves what was applied; its address.

    Until then requests go to the revision before: a version that never becomes ready replaces nothing.

    Args:
        api: the API server.
        service: as applied.
        ready_s: how long that may take, in seconds.
        pause_s: between two questions.

    Raises:
        UserError: the account may not see the service's Deployment (mode ``standard``).
        TimeoutError: it did not become ready; the message says what KServe says.
    """
    deadline = time.monotonic() + ready_s
    while True:
        found = api.get(_path(service)) or {}
        status = found.get("status") or {}
        conditions = {one.get("type"): one for one in status.get("conditions") or []}
        ready = conditions.get("Ready", {})
        seen = status.get("observedGeneration", 0) >= found.get("metadata", {}).get("generation", 1)
        waiting = ""
        if seen and ready.get("status") == "True":
            waiting = _pods_to_come(api, service)
            if not waiting:
                return str(status.get("url", ""))
        if time.monotonic() > deadline:
            reasons = [
                f"{name}: {one.get('message') or one.get('reason') or one.get('status')}"
                for name, one in sorted(conditions.items())
                if one.get("status") != "True" and name != "Stopped"  # false is what it should be
            ]
            shown = waiting or printable("; ".join(reasons))[:500] or "KServe says nothing of it"
            raise TimeoutError(
                f"{service['metadata']['name']} is not ready after {ready_s:.0f} s ({shown}); requests "
                "still go to the version before"
            )
        time.sleep(pause_s)


def _pods_to_come(api: KubernetesApi, service: Mapping[str, Any]) -> str:
    """What a service in the mode ``standard`` still waits for; empty: nothing.

    Without Knative KServe calls a service ready as long as the pods of the version before serve, however the
    new ones fare (seen with 0.20). Whether the new ones have taken over is the Deployment's to say.

    Raises:
        UserError: the account may not see it.
    """
    if service["metadata"].get("annotations", {}).get(MODE_ANNOTATION) != MODES["standard"]:
        return ""
    namespace, name = _names(service)
    code, found = api.ask(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}-predictor")
    if code == 403:
        raise UserError(
            f"the Deployment of {name} may not be read{_CURES[403]} of this version", code="serving.refused"
        )
    if found is None:
        return f"its Deployment {name}-predictor cannot be read (HTTP {code or 'none'})"
    status, wanted = found.get("status") or {}, found.get("spec", {}).get("replicas", 1)
    new, ready = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 1):
        return "its Deployment has not been looked at yet"
    if new >= wanted and status.get("replicas", 0) == new and ready >= new:
        return ""
    left = status.get("unavailableReplicas", 0)
    return f"{left} of its new pods are not ready: kubectl logs deployment/{name}-predictor"


def _path(service: Mapping[str, Any]) -> str:
    namespace, name = _names(service)
    return f"/apis/{GROUP}/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}"


def _names(service: Mapping[str, Any]) -> tuple[str, str]:
    metadata = service["metadata"]
    return quote(metadata["namespace"], safe=""), quote(metadata["name"], safe="")
