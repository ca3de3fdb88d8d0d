"""Compile the pipelines to KFP YAML; the same inputs give the same bytes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from latentrec.core import UserError
from latentrec.steps.status import exit_code_on_error
from pipeline.dags import PIPELINES, SYSTEMS, pipeline_of
from pipeline.pipeline_versions import version_name
from pipeline.signatures import choices

FORMATS = ("yaml", "crd")


def compile_pipelines(output: Path, systems: tuple[str, ...] = PIPELINES) -> list[Path]:
    """Write ``<system>.yaml`` for each pipeline; images come from the environment (``components.images``).

    Raises:
        UserError: a release is compiled without its lock of digests.
    """
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for system in systems:
        path = output / f"{system}.yaml"
        compiler.Compiler().compile(_with_choices(system), str(path))
        written.append(path)
    return written


def compile_manifests(output: Path, *, namespace: str = "kubeflow") -> list[Path]:
    """Write ``<system>-crd.yaml``: a ``Pipeline`` and a ``PipelineVersion`` of KFP for ``kubectl apply``.

    For installations whose KFP keeps pipelines in Kubernetes, and so for GitOps. A version's name holds the
    hash of the pipeline, as on other installations: a changed pipeline is a new version, the old one stays.

    Args:
        output: folder.
        namespace: of the objects.
    """
    written = []
    for path in compile_pipelines(output):
        system = path.stem
        name, kubernetes_name = version_name(path), system.replace("_", "-")
        options = KubernetesManifestOptions(
            pipeline_name=kubernetes_name,
            pipeline_version_name=f"{kubernetes_name}-{name}",
            pipeline_version_display_name=name,
            namespace=namespace,
            include_pipeline_manifest=True,
        )
        made = output / f"{system}-crd.yaml"
        compiler.Compiler().compile(
            _with_choices(system),
            str(made),
            kubernetes_manifest_format=True,
            kubernetes_manifest_options=options,
        )
        written.append(made)
    return written


def _with_choices(system: str) -> Any:
    """The pipeline, with the values that its parameters may have: KFP's form shows them as a list.

    The SDK has no way to say so; the specification has (``literals``, since KFP 2.16), and backends check it.
    """
    pipeline = pipeline_of(system)
    parameters = pipeline.pipeline_spec.root.input_definitions.parameters
    for name, definition in parameters.items():
        del definition.literals[:]
        for value in choices(system, name) if system in SYSTEMS else ():
            kind = "bool_value" if isinstance(value, bool) else "string_value"
            kind = "number_value" if isinstance(value, int) and not isinstance(value, bool) else kind
            definition.literals.add(**{kind: value})
    return pipeline


def main() -> None:
    """``make pipeline-compile``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/pipelines"))
    parser.add_argument(
        "--format", default=os.environ.get("FORMAT") or "yaml", help=f"FORMAT: {' or '.join(FORMATS)}"
    )
    arguments = parser.parse_args()
    if arguments.format not in FORMATS:
        raise UserError(
            f"FORMAT is {arguments.format!r}, expected {' or '.join(FORMATS)}", code="config.bad_value"
        )
    if arguments.format == "crd":
        namespace = os.environ.get("KFP_NAMESPACE") or "kubeflow"
        written = compile_manifests(arguments.output, namespace=namespace)
    else:
        written = compile_pipelines(arguments.output)
    for path in written:
        print(path)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
