"""``make run RUNNER=docker``: each step of a local run in its own container, through KFP's DockerRunner.

KFP's runner is used with one part replaced: its ``run_docker_container`` lets the engine remove a container
as soon as it has ended, finds it gone, and takes that for success whatever the exit code was.
"""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.storage import is_local, local_path
from pipeline.dags import pipeline_of
from pipeline.kfp_compat import containers_run_by
from pipeline.local_runner import RunFolders
from pipeline.task_settings import USER
from pipeline.tracking_uri import tracking_uri

ROOT = Path(__file__).resolve().parents[1]
PASSED_ON = (
    *("MLFLOW_", "LATENTREC_", "HF_", "OMP_", "TOKENIZERS_"),
    *("STORAGE_EMULATOR_HOST", "NO_PROXY", "OPENAI_API_KEY"),
)
"""What of this process's environment a step's container sees: variables that begin like this."""


def hardened(user: str) -> dict[str, Any]:
    """How every container runs: as a cluster with a strict policy would run it.

    Args:
        user: numeric user and group, ``UID:GID``.
    """
    return {
        "user": user,
        "read_only": True,
        "tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "network_mode": "host",
        "shm_size": "1g",
    }


def container_user() -> str:
    """The images' user where we may give files to it (as root), else our own."""
    uid, gid = (USER, USER) if os.getuid() == 0 else (os.getuid(), os.getgid())
    return f"{uid}:{gid}"


def give_to_containers(folder: Path) -> None:
    """Make a folder, and what stands in it, writable for the containers' user."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, USER, USER, follow_symlinks=False)


def _client_library() -> Any:
    """The package ``docker``, by its name: a type checker takes this repository's folder for it."""
    return importlib.import_module("docker")


@contextmanager
def engine() -> Iterator[Any]:
    """A client of docker, or of a podman service started for as long as this lasts (``DOCKER_HOST`` set).

    Raises:
        UserError: there is neither.
    """
    docker = _client_library()
    with ExitStack() as stack:
        try:
            client = docker.from_env()
            client.ping()
        except docker.errors.DockerException:
            stack.enter_context(_podman_service())
            client = docker.from_env()
        stack.callback(client.close)
        yield client


@contextmanager
def _podman_service() -> Iterator[None]:
    podman = shutil.which("podman")
    if podman is None:
        raise UserError(
            "containers need docker or podman: no docker service answers, podman is not on the PATH",
            code="containers.no_engine",
        )
    before = os.environ.get("DOCKER_HOST")
    if not Path("/run/systemd/system").is_dir():
        os.environ.setdefault("CONTAINERS_CONF", str(ROOT / "docker" / "containers.conf"))
    with tempfile.TemporaryDirectory(prefix="latentrec-podman-") as folder:
        address, log = Path(folder) / "podman.sock", Path(folder) / "log"
        with log.open("wb") as stream:
            service = subprocess.Popen(
                [podman, "system", "service", "--time=0", f"unix://{address}"], stderr=stream, stdout=stream
            )
        try:
            _wait_for(address, service, log)
            os.environ["DOCKER_HOST"] = f"unix://{address}"
            yield
        finally:
            os.environ.pop("DOCKER_HOST", None)
            if before is not None:
                os.environ["DOCKER_HOST"] = before
            service.terminate()
            service.wait(timeout=20)


def _wait_for(address: Path, service: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and service.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(address)) == 0:
                return
        time.sleep(0.1)
    service.kill()
    raise UserError(
        f"podman's service did not start: {log.read_text(errors='replace').strip()[-400:]}",
        code="containers.no_engine",
    )


def run_and_wait(
    client: Any, image: str, command: Sequence[str], volumes: Mapping[str, Any], **arguments: Any
) -> int:
    """Run a container to its end, show what it prints, remove it, and return its exit code."""
    container = client.containers.run(
        image=image, command=list(command), detach=True, volumes=dict(volumes), **arguments
    )
    try:
        for piece in container.logs(stream=True, follow=True):
            print(piece.decode("utf-8", "replace"), end="")
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that the steps see."""
    return {name: value for name, value in environment.items() if name.startswith(PASSED_ON)}


@contextmanager
def container_runner(folders: RunFolders, *, inputs: Sequence[str] = ()) -> Iterator[Any]:
    """A KFP runner whose tasks run in hardened containers that see the run's folders.

    Args:
        folders: of the run; mounted at the same path, writable.
        inputs: locations of the run's inputs; the local ones are mounted read-only.

    Yields:
        The runner, for :func:`pipeline.local_runner.run_pipeline`.
    """
    from kfp import local

    volumes: dict[str, dict[str, str]] = {
        str(path): {"bind": str(path), "mode": "ro"}
        for path in (local_path(uri).resolve() for uri in inputs if is_local(uri))
    }
    give_to_containers(folders.root / "pipeline_root")
    if os.getuid() == 0:
        os.chown(folders.root, USER, USER)  # it may be closed to others, and containers must be able to enter
    for uri in folders.environment.values():
        if is_local(uri) and "://" not in uri:
            give_to_containers(Path(uri))
    volumes[str(folders.root)] = {"bind": str(folders.root), "mode": "rw"}

    def run(client: Any, image: str, command: Any, volumes_: Any = None, **arguments: Any) -> int:
        mounted = {**volumes, **(arguments.pop("volumes", None) or volumes_ or {})}
        environment = passed_on(os.environ) | dict(arguments.pop("environment", None) or {})
        return run_and_wait(client, image, command, mounted, environment=environment, **arguments)

    with engine(), containers_run_by(run):
        yield local.DockerRunner(**hardened(container_user()))


def images_of(system: str) -> set[str]:
    """The images that a pipeline's steps run in."""
    executors = pipeline_of(system).pipeline_spec.deployment_spec["executors"]
    return {str(executors[name]["container"]["image"]) for name in executors}


def check_images(system: str, client: Any) -> None:
    """See that this machine has a pipeline's images: a run never fetches them.

    Raises:
        UserError: naming those that are missing.
    """
    docker = _client_library()
    missing = []
    for name in sorted(images_of(system)):
        try:
            client.images.get(name)
        except docker.errors.ImageNotFound:
            missing.append(name)
    if missing:
        raise UserError(
            f"this machine has no image {', '.join(missing)}; build them with `make images` (the same "
            "IMAGE_REGISTRY and IMAGE_TAG)",
            code="containers.no_image",
        )


@contextmanager
def tracking_server(folders: RunFolders) -> Iterator[str]:
    """An MLflow server over the run folder's embedded store: the images have MLflow's client only.

    Yields:
        Its address; what the user has set in ``MLFLOW_TRACKING_URI`` instead, where it is a server.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if given.startswith("http"):
        yield given
        return
    artifacts = folders.root / "mlartifacts"
    give_to_containers(artifacts)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folders.root / "logs" / "mlflow-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", tracking_uri(folders.root)]
    command += ["--default-artifact-root", artifacts.as_uri(), "--no-serve-artifacts"]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("wb") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, env=quiet)
    try:
        _wait_for_http(port, server, log)
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
        yield os.environ["MLFLOW_TRACKING_URI"]
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if given:
            os.environ["MLFLOW_TRACKING_URI"] = given
        server.terminate()
        server.wait(timeout=30)


def _wait_for_http(port: int, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    server.kill()
    raise UserError(
        f"the MLflow server did not start; its log is {log}", code="containers.no_tracking_server"
    )
