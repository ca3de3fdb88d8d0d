"""A KServe ``InferenceService`` for a registered version: written as a manifest, or applied by a run.

Two forms: ``image``, our image with MLflow's scoring server on the registry, with the interface of
``docs/using-the-model.md``; ``mlflow``, the files in object storage handed to KServe's own MLflow runtime.
Scaling to zero and canaries are Knative's, the default mode; ``standard`` does without Knative and both of
them. Pod-level security settings are off in Knative's defaults, so all of them stand in the container.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from latentrec.core import UserError
from latentrec.core.cluster_names import SETTINGS_CONFIG_MAP, STORE_KEYS_SECRET
from latentrec.core.settings import (
    MLFLOW_TRACKING_URI_VARIABLE,
    S3_ACCESS_KEY_VARIABLE,
    S3_ENDPOINT_VARIABLE,
    S3_SECRET_KEY_VARIABLE,
)
from latentrec.registry.model_registry import RegisteredVersion

GROUP, API_VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
FORMATS = ("image", "mlflow")
MODES = {"knative": "Serverless", "standard": "RawDeployment"}
"""KServe's deployment modes, and the names of them that its old and new releases both take."""
MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
READABLE = ("gs://", "s3://", "https://", "hdfs://", "webhdfs://")
"""Locations that both the registry writes and KServe's storage initializer reads."""

PORT = 8080
LONGEST_NAME = 40
"""Knative appends ``-predictor-00001-…``, and the whole is a DNS label of 63 characters."""

SMALL, LARGE, LARGEST = ("1", "2Gi"), ("4", "16Gi"), ("8", "48Gi")
RESOURCES = {"popularity": SMALL, "sasrec": SMALL, "gru4rec": SMALL, "lares": SMALL, "reczero": LARGEST}
"""CPU and memory by system; :data:`LARGE` (a backbone of 1.5 B on CPU) for the others."""


@dataclass(frozen=True)
class ServeOptions:
    """How versions are served.

    Attributes:
        form: ``image`` or ``mlflow``.
        namespace: where the service is made.
        cpu, memory: Kubernetes quantities; empty: by the system (:data:`RESOURCES`).
        max_replicas: most pods of one revision; the least is none, in the mode ``standard`` one.
        mode: ``knative``, or ``standard`` for a cluster that has KServe without Knative.
    """

    form: str = "image"
    namespace: str = "latentrec"
    cpu: str = ""
    memory: str = ""
    max_replicas: int = 4
    mode: str = "knative"

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise UserError(
                f"FORMAT is {self.form!r}, expected {' or '.join(FORMATS)}", code="config.bad_value"
            )
        if self.mode not in MODES:
            raise UserError(
                f"SERVE_MODE is {self.mode!r}, expected {' or '.join(MODES)}", code="config.bad_value"
            )
        if self.max_replicas < 1:
            raise UserError(
                f"SERVE_MAX_REPLICAS is {self.max_replicas}, expected at least 1", code="config.bad_value"
            )
        for name, value, pattern, example in (
            ("SERVE_CPU", self.cpu, r"\d+(\.\d+)?|\d+m", "2 or 500m"),
            ("SERVE_MEMORY", self.memory, r"\d+(Ki|Mi|Gi|Ti|k|M|G|T)?", "16Gi"),
            ("SERVE_NAMESPACE", self.namespace, r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "latentrec"),
        ):
            if value and not re.fullmatch(pattern, value):
                raise UserError(
                    f"{name} is {value!r}, expected for example {example}", code="config.bad_value"
                )


def service_of(
    version: RegisteredVersion,
    place: str,
    options: ServeOptions,
    *,
    image: str,
    canary_percent: int = 0,
    stable: RegisteredVersion | None = None,
) -> dict[str, Any]:
    """The ``InferenceService`` that serves one version.

    Args:
        version: what is served.
        place: where its files lie; read by the form ``mlflow``.
        options: how.
        image: of the server; used by the form ``image``.
        canary_percent: share of the requests, 1 to 100, that goes to this version; the rest stays with the
            revision that was rolled out before it; 0: all of them.
        stable: the version rolled out before, named in the annotations beside a canary.

    Raises:
        UserError: KServe cannot read the version's files where they lie (form ``mlflow``); a canary in the
            mode ``standard``.
    """
    knative = options.mode == "knative"
    if canary_percent and not knative:
        raise UserError(
            f"SERVE_CANARY is {canary_percent} with SERVE_MODE={options.mode}: sharing requests between "
            "two versions needs Knative",
            code="serving.no_canary",
        )
    cpu, memory = RESOURCES.get(version.tags.get("model.system", ""), LARGE)
    resources = {"cpu": options.cpu or cpu, "memory": options.memory or memory}
    container = {
        "resources": {"requests": resources, "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    predictor: dict[str, Any] = {
        "serviceAccountName": "latentrec-serving",
        "automountServiceAccountToken": False,
        "labels": {"app.kubernetes.io/part-of": "latentrec"},
        "minReplicas": 0 if knative else 1,
        "maxReplicas": options.max_replicas,
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi" if memory == SMALL[1] else "32Gi"}}],
    }
    if knative:
        # A backbone of some gigabytes takes longer than Knative's ten minutes on a slow disk.
        predictor["annotations"] = {"serving.knative.dev/progress-deadline": "1800s"}
    if canary_percent:
        predictor["canaryTrafficPercent"] = canary_percent
    if options.form == "mlflow":
        predictor["model"] = container | _mlflow_model(version, place)
    else:
        predictor["containers"] = [container | _own_image(version, image)]
    annotations = {
        MODE_ANNOTATION: MODES[options.mode],
        "latentrec/model": version.uri,
        "latentrec/aliases": ",".join(sorted(version.aliases)),
        "latentrec/model-fingerprint": version.tags.get("model.fingerprint", ""),
    }
    if stable is not None:
        annotations["latentrec/stable-model"] = stable.uri
    metadata = {
        "name": service_name(version.name),
        "namespace": options.namespace,
        "labels": {
            "app.kubernetes.io/name": "recommender",
            "app.kubernetes.io/part-of": "latentrec",
            "latentrec/version": version.version,
        },
        "annotations": annotations,
    }
    return {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


def _mlflow_model(version: RegisteredVersion, place: str) -> dict[str, Any]:
    if not place.startswith(READABLE):
        raise UserError(
            f"{version.uri} lies in {place}, which KServe cannot read (it reads {', '.join(READABLE)}); "
            "give the registry an artifact root in object storage, or serve it with FORMAT=image",
            code="serving.unreadable_location",
        )
    return {
        "modelFormat": {"name": "mlflow"},
        "protocolVersion": "v2",
        "storageUri": place,
        "env": [{"name": "HOME", "value": "/tmp"}],
    }


def _own_image(version: RegisteredVersion, image: str) -> dict[str, Any]:
    def from_settings(name: str, *, optional: bool) -> dict[str, Any]:
        return {"configMapKeyRef": {"name": SETTINGS_CONFIG_MAP, "key": name, "optional": optional}}

    def from_store(key: str) -> dict[str, Any]:
        return {"secretKeyRef": {"name": STORE_KEYS_SECRET, "key": key, "optional": True}}

    probe = {"httpGet": {"path": "/ping", "port": PORT}, "periodSeconds": 5, "timeoutSeconds": 5}
    return {
        "name": "kserve-container",
        "image": image,
        "command": ["mlflow", "models", "serve"],
        "args": [
            f"--model-uri={version.uri}",
            "--env-manager=local",
            "--host=0.0.0.0",
            f"--port={PORT}",
        ],
        "env": [
            {
                "name": "MLFLOW_TRACKING_URI",
                "valueFrom": from_settings(MLFLOW_TRACKING_URI_VARIABLE, optional=False),
            },
            {"name": "MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "value": "false"},
            {
                "name": S3_ENDPOINT_VARIABLE,
                "valueFrom": from_settings(S3_ENDPOINT_VARIABLE, optional=True),
            },
            {"name": S3_ACCESS_KEY_VARIABLE, "valueFrom": from_store("accesskey")},
            {"name": S3_SECRET_KEY_VARIABLE, "valueFrom": from_store("secretkey")},
        ],
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        # The server listens once the model is loaded and has answered a request of its own.
        "readinessProbe": probe,
    }


def service_name(model: str) -> str:
    """A registered model's name as that of a service: a DNS label, different for different models."""
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    if plain == model and plain[0].isalpha() and len(plain) <= LONGEST_NAME:
        return plain
    digest = sha256(model.encode()).hexdigest()[:6]
    kept = (plain if plain[:1].isalpha() else f"m-{plain}")[: LONGEST_NAME - 7].strip("-")
    return f"{kept}-{digest}"
