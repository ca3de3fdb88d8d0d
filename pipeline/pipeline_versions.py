"""Versions of a pipeline on a KFP installation: named by content, uploaded once, found again by name."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from latentrec import __version__
from latentrec.core import UserError
from latentrec.core.settings import ALLOW_LOCAL_IMAGES_VARIABLE
from pipeline.cluster import quiet


@dataclass(frozen=True)
class PipelineVersion:
    """A pipeline version on the installation.

    Attributes:
        pipeline_id: of the pipeline.
        version_id: of the version.
        name: of the version.
        created: false when the same bytes had been uploaded before.
    """

    pipeline_id: str
    version_id: str
    name: str
    created: bool


def version_name(package: Path) -> str:
    """Name of a compiled pipeline's version: release and a hash of its bytes."""
    return f"{__version__}-{hashlib.sha256(package.read_bytes()).hexdigest()[:12]}"


def check_images(package: Path) -> None:
    """Refuse images of this machine, unless ``LATENTREC_ALLOW_LOCAL_IMAGES=true``: every node has them.

    Args:
        package: a compiled pipeline.

    Raises:
        UserError: naming the image.
    """
    if os.environ.get(ALLOW_LOCAL_IMAGES_VARIABLE) == "true":
        return
    spec = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    for entry in spec["deploymentSpec"]["executors"].values():
        image = entry.get("container", {}).get("image", "")
        if image.startswith("localhost/"):
            raise UserError(
                f"the pipeline's image is {image}, which a cluster cannot pull; set IMAGE_REGISTRY, run "
                f"`make images push`, or set {ALLOW_LOCAL_IMAGES_VARIABLE}=true where every node has it",
                code="images.not_pullable",
            )


def upload(client: Any, system: str, package: Path, *, namespace: str = "") -> PipelineVersion:
    """Upload a compiled pipeline as a version of the pipeline ``system``; the same bytes only once.

    Args:
        client: of :func:`connect`.
        system: name of the pipeline; made when it is not there.
        package: the compiled YAML.
        namespace: of a multi-user installation, where the pipeline belongs; empty: shared, or single-user.
    """
    import kfp_server_api

    check_images(package)
    name = version_name(package)
    pipeline_id = _pipeline_id(client, system, namespace)
    if pipeline_id is None:
        spec = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
        made = client.pipelines.pipeline_service_create_pipeline(
            pipeline=kfp_server_api.V2beta1Pipeline(
                display_name=system,
                name=system,
                description=spec.get("pipelineInfo", {}).get("description"),
                namespace=namespace or None,
            )
        )
        pipeline_id = made.pipeline_id
    same = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    listed = client.list_pipeline_versions(pipeline_id, filter=json.dumps(same))
    for version in listed.pipeline_versions or []:
        if version.display_name == name:
            return PipelineVersion(pipeline_id, version.pipeline_version_id, name, created=False)
    with quiet():
        version = client.upload_pipeline_version(
            str(package), name, pipeline_id=pipeline_id, description=version_description(package)
        )
    return PipelineVersion(pipeline_id, version.pipeline_version_id, name, created=True)


def find_version(client: Any, system: str, name: str, *, namespace: str = "") -> PipelineVersion:
    """A version that is there, by its name; ``latest`` is the newest.

    Raises:
        UserError: the pipeline or the version is not there.
    """
    pipeline_id = _pipeline_id(client, system, namespace)
    if pipeline_id is None:
        raise UserError(
            f"VERSION is {name!r}, and the installation has no pipeline '{system}'",
            code="cluster.unknown_version",
        )
    listed = client.list_pipeline_versions(pipeline_id, sort_by="created_at desc", page_size=100)
    versions = listed.pipeline_versions or []
    for version in versions:
        if name in ("latest", version.display_name):
            return PipelineVersion(
                pipeline_id, version.pipeline_version_id, version.display_name, created=False
            )
    known = ", ".join(version.display_name for version in versions[:10]) or "none"
    raise UserError(f"VERSION is {name!r}; {system} has: {known}", code="cluster.unknown_version")


def version_description(package: Path) -> str:
    """What a version is made of: release, images, and the hash in its name."""
    spec = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    executors = spec["deploymentSpec"]["executors"].values()
    images = sorted({entry["container"]["image"] for entry in executors if "container" in entry})
    return f"latentrec {__version__}; {spec.get('sdkVersion', '')}; images {', '.join(images)}"[:1000]


def _pipeline_id(client: Any, name: str, namespace: str) -> str | None:
    """Id of the pipeline of a name in a namespace; ``None`` where there is none."""
    wanted = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    given = {"namespace": namespace} if namespace else {}
    found = client.pipelines.pipeline_service_list_pipelines(filter=json.dumps(wanted), **given)
    return next((entry.pipeline_id for entry in found.pipelines or []), None)
