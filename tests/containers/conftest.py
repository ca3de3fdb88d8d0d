"""What the container tests share: an engine, the images, an object store, an MLflow server, a small shop."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from latentrec.data import generate_sample
from latentrec.storage import store_for
from pipeline.containers import check_images, container_user, engine, hardened
from tests.fakes.gcs_server import GcsServer
from tests.manifests.deployment import base_mlflow, command_line

IMAGE_NAMES = ("preflight", "data-prep", "train", "evaluate", "register")


def image_named(name: str) -> str:
    """An image that `make test-containers` has built; it names registry and tag in the environment."""
    return f"{os.environ['IMAGE_REGISTRY']}/{name}:{os.environ['IMAGE_TAG']}"


@dataclass(frozen=True)
class World:
    """What stands around the containers.

    Attributes:
        client: of the container engine.
        store: the object store's server.
        environment: what every step is told of its surroundings.
        reviews: ``gs://`` location of the inputs.
        metadata: the same.
        folder: of the inputs on this machine.
    """

    client: Any
    store: GcsServer
    environment: dict[str, str]
    reviews: str
    metadata: str
    folder: Path


@pytest.fixture(scope="session")
def container_engine() -> Iterator[Any]:
    """The engine's client, on a machine that has the images."""
    if "IMAGE_TAG" not in os.environ:
        pytest.exit("the images are named by `make test-containers`; run that", returncode=2)
    with engine() as client:
        check_images("latentr3", client)
        yield client


@pytest.fixture(scope="session")
def world(container_engine, tmp_path_factory) -> Iterator[World]:
    """Object store, MLflow server in its image, inputs; this process's environment points at them."""
    store = GcsServer(tmp_path_factory.mktemp("gcs")).start()
    store.buckets.create_bucket("bucket")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "LATENTREC_"))]:
            patch.delenv(name)
        port = free_port()
        environment = {
            "STORAGE_EMULATOR_HOST": store.url,
            "NO_PROXY": "127.0.0.1,localhost",
            "MLFLOW_TRACKING_URI": f"http://localhost:{port}",
            "LATENTREC_ARTIFACT_ROOT": "gs://bucket/mlflow",
            "LATENTREC_STATUS_ROOT": "gs://bucket/status",
            "OMP_NUM_THREADS": "1",
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("shop")
        paths = generate_sample(folder, users=60, items=72, events_per_user=15)
        uris = [f"gs://bucket/inputs/{path.name}" for path in paths]
        for path, uri in zip(paths, uris, strict=True):
            store_for(uri).upload_file(path, uri)
        server = start_mlflow(container_engine, port, store.url)
        reviews, metadata = uris
        yield World(container_engine, store, environment, reviews, metadata, folder)
        server.remove(force=True)
    store.stop()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_mlflow(client: Any, port: int, store: str) -> Any:
    """The tracking server by the command line of its manifest, on SQLite instead of PostgreSQL."""
    given = {"DATABASE_PASSWORD": "none", "ARTIFACT_ROOT": "gs://bucket/mlflow"}
    words, environment = command_line(base_mlflow(), given)
    command = [*words, "--host=127.0.0.1", f"--port={port}"]
    environment |= {"MLFLOW_BACKEND_STORE_URI": "sqlite:////tmp/mlflow.db", "STORAGE_EMULATOR_HOST": store}
    container = client.containers.run(
        image_named("mlflow"), command, detach=True, environment=environment, **hardened(container_user())
    )
    end = time.monotonic() + 180
    while time.monotonic() < end:
        try:
            if requests.get(f"http://localhost:{port}/health", timeout=2).ok:
                return container
        except requests.ConnectionError:
            time.sleep(0.5)
        container.reload()
        if container.status == "exited":
            break
    told = container.logs().decode("utf-8", "replace")
    container.remove(force=True)
    raise AssertionError(f"MLflow's container did not start:\n{told[-3000:]}")
