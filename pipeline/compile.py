"""Compile the pipelines to KFP YAML; the same inputs give the same bytes."""

from __future__ import annotations

import argparse
from pathlib import Path

from kfp import compiler

from latentrec.steps.status import exit_code_on_error
from pipeline.dags import SYSTEMS, pipeline_of


def compile_pipelines(output: Path, systems: tuple[str, ...] = SYSTEMS) -> list[Path]:
    """Write ``<system>.yaml`` for each system; images come from the environment (``components.images``).

    Raises:
        UserError: a release is compiled without its lock of digests.
    """
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for system in systems:
        path = output / f"{system}.yaml"
        compiler.Compiler().compile(pipeline_of(system), str(path))
        written.append(path)
    return written


def main() -> None:
    """``make pipeline-compile``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/pipelines"))
    arguments = parser.parse_args()
    for path in compile_pipelines(arguments.output):
        print(path)


if __name__ == "__main__":
    with exit_code_on_error():
        main()
