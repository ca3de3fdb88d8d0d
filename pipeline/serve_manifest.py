"""``make serve-manifest``: a KServe ``InferenceService`` for a registered version, and one for its canary.

The alias is resolved here and the version written down, so that what is served changes only when a manifest
is applied. Two forms (``FORMAT=``): ``image``, our image with MLflow's scoring server on the registry, with
the interface of ``docs/using-the-model.md``; ``mlflow``, the files in object storage handed to KServe's own
MLflow runtime. Scaling to zero and canaries are Knative's, hence the deployment mode; pod-level security
settings are off in Knative's defaults, so all of them stand in the container.
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from components.images import image
from latentrec.core import UserError
from latentrec.core.settings import (
    MLFLOW_TRACKING_URI_VARIABLE,
    S3_ACCESS_KEY_VARIABLE,
    S3_ENDPOINT_VARIABLE,
    S3_SECRET_KEY_VARIABLE,
)
from latentrec.registry.model_registry import CHALLENGER, CHAMPION, RegisteredVersion, Registry
from latentrec.steps.status import exit_code_on_error
from latentrec.tracking.embedded_store import embedded_path
from pipeline.task_settings import SETTINGS, STORE_KEYS

FORMATS = ("image", "mlflow")
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
        max_replicas: most pods of one revision; the least is none.
    """

    form: str = "image"
    namespace: str = "latentrec"
    cpu: str = ""
    memory: str = ""
    max_replicas: int = 4

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise UserError(
                f"FORMAT is {self.form!r}, expected {' or '.join(FORMATS)}", code="config.bad_value"
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


def inference_service(
    version: RegisteredVersion,
    place: str,
    options: ServeOptions,
    *,
    canary_percent: int = 0,
    stable: RegisteredVersion | None = None,
) -> dict[str, Any]:
    """The ``InferenceService`` that serves one version.

    Args:
        version: what is served.
        place: where its files lie; read by the form ``mlflow``.
        options: how.
        canary_percent: share of the requests, 1 to 100, that goes to this version; the rest stays with the
            revision that was rolled out before it; 0: all of them.
        stable: the version rolled out before, named in the annotations beside a canary.

    Raises:
        UserError: KServe cannot read the version's files where they lie (form ``mlflow``).
    """
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
        # A backbone of some gigabytes takes longer than Knative's ten minutes on a slow disk.
        "annotations": {"serving.knative.dev/progress-deadline": "1800s"},
        "labels": {"app.kubernetes.io/part-of": "latentrec"},
        "minReplicas": 0,
        "maxReplicas": options.max_replicas,
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi" if memory == SMALL[1] else "32Gi"}}],
    }
    if canary_percent:
        predictor["canaryTrafficPercent"] = canary_percent
    if options.form == "mlflow":
        predictor["model"] = container | _mlflow_model(version, place)
    else:
        predictor["containers"] = [container | _own_image(version)]
    annotations = {
        "serving.kserve.io/deploymentMode": "Serverless",
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
        "apiVersion": "serving.kserve.io/v1beta1",
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


def _own_image(version: RegisteredVersion) -> dict[str, Any]:
    def from_settings(name: str, *, optional: bool) -> dict[str, Any]:
        return {"configMapKeyRef": {"name": SETTINGS, "key": name, "optional": optional}}

    def from_store(key: str) -> dict[str, Any]:
        return {"secretKeyRef": {"name": STORE_KEYS, "key": key, "optional": True}}

    probe = {"httpGet": {"path": "/ping", "port": PORT}, "periodSeconds": 5, "timeoutSeconds": 5}
    return {
        "name": "kserve-container",
        "image": image("register"),
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


def write_manifests(
    registry: Registry, model: str, output: Path, options: ServeOptions, canary_percent: int = 0
) -> list[Path]:
    """Write the manifest of ``model``, and with ``canary_percent`` that of its challenger beside it.

    Returns:
        The files, in the order in which they are applied.

    Raises:
        UserError: nothing is registered there; the challenger is what is served already; a location that
            KServe cannot read. Nothing is written then.
    """
    stable = registry.resolve(model)
    services = {"": inference_service(stable, _place(registry, stable), options)}
    if canary_percent:
        if not 1 <= canary_percent <= 100:
            raise UserError(
                f"SERVE_CANARY is {canary_percent}, expected 1 to 100 (per cent of the requests)",
                code="config.bad_value",
            )
        canary = registry.by_alias(stable.name, CHALLENGER)
        if canary is None or canary.version == stable.version:
            state = f"is version {stable.version} itself" if canary else "is not set"
            raise UserError(
                f"there is no canary beside {stable.uri}: alias {CHALLENGER} of {stable.name} {state}",
                code="serving.no_canary",
            )
        services["-canary"] = inference_service(
            canary, _place(registry, canary), options, canary_percent=canary_percent, stable=stable
        )
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, service in services.items():
        path = output / f"{service['metadata']['name']}{suffix}.yaml"
        path.write_text(yaml.safe_dump(service, sort_keys=False, allow_unicode=True), encoding="utf-8")
        written.append(path)
    return written


def _place(registry: Registry, version: RegisteredVersion) -> str:
    return str(registry.client.get_model_version_download_uri(version.name, version.version))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    try:
        return int(text) if text else default
    except ValueError:
        raise UserError(f"{name} is {text!r}, expected a whole number", code="config.bad_value") from None


def main(argv: list[str] | None = None) -> None:
    """``make serve-manifest``: ``MODEL``, ``FORMAT`` and ``SERVE_…`` from the environment."""
    parser = argparse.ArgumentParser(prog="make serve-manifest", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/serving"))
    output = parser.parse_args(argv).output
    given = os.environ
    model = given.get("MODEL", "")
    if not model:
        raise UserError(
            f"MODEL is not given; expected for example MODEL=models:/latentr3@{CHAMPION}",
            code="config.missing_value",
        )
    options = ServeOptions(
        form=given.get("FORMAT") or ServeOptions.form,
        namespace=given.get("SERVE_NAMESPACE") or ServeOptions.namespace,
        cpu=given.get("SERVE_CPU", ""),
        memory=given.get("SERVE_MEMORY", ""),
        max_replicas=_number("SERVE_MAX_REPLICAS", ServeOptions.max_replicas),
    )
    registry = Registry()
    if options.form == "image" and embedded_path(registry.tracking_uri):
        raise UserError(
            f"the registry {registry.tracking_uri} is on this machine, where no cluster reads it; set "
            "MLFLOW_TRACKING_URI to the cluster's server (kubectl -n latentrec port-forward svc/mlflow 5000)",
            code="serving.local_registry",
        )
    for path in write_manifests(registry, model, output, options, _number("SERVE_CANARY", 0)):
        version = yaml.safe_load(path.read_text(encoding="utf-8"))["metadata"]["annotations"][
            "latentrec/model"
        ]
        print(f"{path}: {version}")


if __name__ == "__main__":
    with exit_code_on_error():
        main()
