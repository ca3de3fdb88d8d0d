"""KFP's launcher, played around each container: artifacts live in object storage, containers see files.

On a cluster the launcher is the first process of a step's pod. It downloads the input artifacts to
``/gcs/BUCKET/…``, replaces the placeholder of the compiled command by the executor input, runs the command,
reads ``/tmp/kfp_outputs/output_metadata.json``, and uploads the output artifacts. This does the same from
outside, with volumes in the places where a pod has its scratch folders; KFP's local orchestrator, which knows
the DAG of the compiled YAML, decides what runs when and hands the outputs on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp import local
from kfp.local import docker_task_handler, executor_output_utils
from kfp.local.config import LocalExecutionConfig
from kfp.local.status import Status
from kfp.pipeline_spec import pipeline_spec_pb2

from latentrec.storage import store_for
from pipeline.containers import give_to_containers
from pipeline.kfp_compat import named_outputs_in_conditions

METADATA = "/tmp/kfp_outputs/output_metadata.json"
Run = Callable[[str, list[str], dict[str, Any], dict[str, str]], int]
"""Runs a container: image, command, volumes, environment; returns its exit code."""


@dataclass
class Launcher:
    """Launches the steps of one run.

    Attributes:
        root: ``gs://`` location of the run's artifacts.
        scratch: folder of this machine for what a pod would have in its scratch volumes.
        run: runs a container.
        launched: (image, exit code) of every container, in order.
    """

    root: str
    scratch: Path
    run: Run
    launched: list[tuple[str, int]] = field(default_factory=list)
    outputs: dict[str, Path] = field(default_factory=dict)

    def launch(self, image: str, command: list[str], environment: dict[str, str]) -> int:
        """One step, from its input artifacts in object storage to its outputs there."""
        at = command.index("--executor_input") + 1
        given = json.loads(command[at])
        pod = self.scratch / f"pod-{len(self.launched)}"
        gcs, metadata = pod / "gcs", pod / "kfp_outputs"
        metadata.mkdir(parents=True)
        _forget_types(given.get("inputs", {}))
        for uri in _uris(given.get("inputs", {})):
            _download(uri, gcs / uri.removeprefix("gs://"))
        for uri in _uris(given["outputs"]):
            (gcs / uri.removeprefix("gs://")).parent.mkdir(parents=True, exist_ok=True)
        self.outputs[given["outputs"]["outputFile"]] = metadata / Path(METADATA).name
        given["outputs"]["outputFile"] = METADATA
        for name, parameter in given["outputs"].get("parameters", {}).items():
            parameter["outputFile"] = f"/tmp/kfp/outputs/{name}"
        give_to_containers(pod)
        volumes = {
            str(gcs): {"bind": "/gcs", "mode": "rw"},
            str(metadata): {"bind": str(Path(METADATA).parent), "mode": "rw"},
        }
        whole = [*command[:at], json.dumps(given), *command[at + 1 :]]
        code = self.run(image, whole, volumes, environment)
        self.launched.append((image, code))
        if code == 0:
            for uri in _uris(given["outputs"]):
                _upload(gcs / uri.removeprefix("gs://"), uri)
        shutil.rmtree(gcs)
        return code

    def executor_output(self, executor_output_path: str) -> pipeline_spec_pb2.ExecutorOutput:
        """What a step wrote, by the path that the orchestrator asks for."""
        found = pipeline_spec_pb2.ExecutorOutput()
        written = self.outputs.get(executor_output_path)
        if written is not None and written.is_file():
            json_format.Parse(written.read_text(encoding="utf-8"), found)
        return found


@contextmanager
def launcher_around_each_container(launcher: Launcher) -> Iterator[None]:
    """KFP's local run with the launcher in the place of its DockerRunner's task handler."""

    class Handler:
        def __init__(
            self,
            image: str,
            full_command: list[str],
            pipeline_root: str,
            runner: Any,
            env_vars: dict[str, str] | None = None,
        ) -> None:
            self.image, self.command, self.environment = image, full_command, env_vars or {}

        def run(self) -> Status:
            code = launcher.launch(self.image, self.command, self.environment)
            return Status.SUCCESS if code == 0 else Status.FAILURE

    before = docker_task_handler.DockerTaskHandler, executor_output_utils.load_executor_output
    local.init(runner=local.DockerRunner(), raise_on_error=True)
    assert LocalExecutionConfig.instance is not None
    LocalExecutionConfig.instance.pipeline_root = launcher.root  # init would make a local path of it
    docker_task_handler.DockerTaskHandler = Handler
    executor_output_utils.load_executor_output = launcher.executor_output
    try:
        with named_outputs_in_conditions():
            yield
    finally:
        docker_task_handler.DockerTaskHandler, executor_output_utils.load_executor_output = before


def _forget_types(inputs: dict[str, Any]) -> None:
    """KFP's launcher hands over another task's artifact without its schema title."""
    for listed in inputs.get("artifacts", {}).values():
        for artifact in listed["artifacts"]:
            artifact["type"] = {"instanceSchema": ""}


def _uris(side: Mapping[str, Any]) -> list[str]:
    """The artifacts' locations in the inputs or outputs of an executor input."""
    found = [entry["uri"] for listed in side.get("artifacts", {}).values() for entry in listed["artifacts"]]
    assert all(uri.startswith("gs://") for uri in found), found
    return found


def _download(uri: str, path: Path) -> None:
    store = store_for(uri)
    below = [info.uri for info in store.list(uri + "/")]
    for name in below or [uri]:
        target = path / name.removeprefix(uri + "/") if below else path
        target.parent.mkdir(parents=True, exist_ok=True)
        store.download_file(name, target)


def _upload(path: Path, uri: str) -> None:
    files = [found for found in path.rglob("*") if found.is_file()] if path.is_dir() else [path]
    for file in files:
        if file.exists():
            name = f"{uri}/{file.relative_to(path).as_posix()}" if path.is_dir() else uri
            store_for(name).upload_file(file, name)
