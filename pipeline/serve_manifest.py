"""``make serve-manifest``: a KServe ``InferenceService`` for a registered version, and one for its canary.

The alias is resolved here and the version written down, so that what is served changes only when a manifest
is applied. ``FORMAT=``: the forms of :mod:`latentrec.registry.inference_service`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import yaml

from components.images import image
from latentrec.core import UserError
from latentrec.registry.inference_service import ServeOptions, service_of
from latentrec.registry.model_registry import CHALLENGER, CHAMPION, RegisteredVersion, Registry
from latentrec.steps.status import exit_code_on_error
from latentrec.tracking.embedded_store import embedded_path


def inference_service(
    version: RegisteredVersion,
    place: str,
    options: ServeOptions,
    *,
    canary_percent: int = 0,
    stable: RegisteredVersion | None = None,
) -> dict[str, Any]:
    """:func:`latentrec.registry.inference_service.service_of` with this checkout's image."""
    return service_of(
        version, place, options, image=image("register"), canary_percent=canary_percent, stable=stable
    )


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
        mode=given.get("SERVE_MODE") or ServeOptions.mode,
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
