"""A registered model, an environment with nothing but its requirements, and MLflow's scoring server on it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import venv
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.fixtures.shop import Shop, decision, make_shop, write_evaluation

NO_NETWORK = """
import socket
_connect = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"this environment is offline, and something connects to {address}")
    return _connect(self, address)
socket.socket.connect = connect
"""


@dataclass(frozen=True)
class PyfuncRecommender:
    """A registered model and where it stands."""

    root: Path
    uri: str
    shop: Shop
    requirements: list[str]
    files: list[Path]
    """What registering stored; whoever loads the model from this local store compiles modules beside them."""

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("LATENTREC", "MLFLOW"))
        }
        kept.pop("PYTHONPATH", None)
        return {
            **kept,
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "OMP_NUM_THREADS": "1",
        }


@dataclass
class Server:
    """A running `mlflow models serve`."""

    url: str
    process: subprocess.Popen
    log: Path
    tree: list[int] = field(default_factory=list)

    def post(self, body, content_type="application/json", timeout=30):
        """(status, text) of one POST to /invocations; bytes are sent as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if content_type is None else {"Content-Type": content_type}
        request = urllib.request.Request(f"{self.url}/invocations", data, headers)
        if content_type is None:
            request.add_unredirected_header("Content-type", "")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> PyfuncRecommender:
    from latentrec.registry.registration import register_model

    root = tmp_path_factory.mktemp("served")
    shop = make_shop(root)
    uri = f"sqlite:///{root / 'mlflow.db'}"
    evaluation = write_evaluation(root / "evaluation", shop.sasrec, decision())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.delenv("LATENTREC_RUN_ID", raising=False)
        outcome = register_model(
            model_dir=shop.sasrec, evaluation_dir=evaluation, name="shop", dataset_dir=shop.dataset
        )
        assert outcome.promoted
    (path,) = root.glob("mlartifacts/**/requirements.txt")
    files = [path for path in (root / "mlartifacts").rglob("*") if path.is_file()]
    return PyfuncRecommender(root, uri, shop, path.read_text().split(), files)


@pytest.fixture(scope="session")
def bare_python_for(tmp_path_factory):
    """Make a virtual environment with given requirements and nothing else, cut off from the network.

    The packages are those of this environment, linked: installing them again would prove no more.
    """

    def make(requirements: list[str]) -> Path:
        folder = tmp_path_factory.mktemp("bare") / "venv"
        venv.create(folder, with_pip=False, symlinks=True)
        (site,) = folder.glob("lib/python*/site-packages")
        for name in closure_of(requirements):
            link_distribution(metadata.distribution(name), site, folder / "bin")
        (site / "sitecustomize.py").write_text(NO_NETWORK)
        return folder / "bin" / "python"

    return make


@pytest.fixture(scope="session")
def bare_python(served, bare_python_for) -> Path:
    return bare_python_for(served.requirements)


def closure_of(requirements: list[str]) -> set[str]:
    """Names of the distributions that pip would install for these requirements."""
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            distribution = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            continue
        name = requirement.name.lower().replace("_", "-")
        for extra in ("", *requirement.extras):
            if f"{name}[{extra}]" not in found:
                found.add(f"{name}[{extra}]")
                waiting += [(Requirement(text), extra) for text in distribution.requires or []]
    return {name.split("[")[0] for name in found}


def link_distribution(distribution, site: Path, scripts: Path) -> None:
    tops = {Path(str(file)).parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
    for top in tops:
        source = Path(str(distribution.locate_file(top)))
        target = site / top
        if not source.exists() or target.exists():
            continue
        if source.is_dir() and top in ("google", "nvidia"):
            target.mkdir()
            for part in source.iterdir():
                (target / part.name).symlink_to(part)
        else:
            target.symlink_to(source)
    for entry in distribution.entry_points.select(group="console_scripts"):
        script = scripts / entry.name
        script.write_text(f"#!{scripts}/python\nfrom {entry.module} import {entry.attr}\n{entry.attr}()\n")
        script.chmod(0o755)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def server(served, bare_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    port, log = free_port(), folder / "server.log"
    command = [str(bare_python), "-m", "mlflow", "models", "serve", "-m", "models:/shop@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**served.environment, "PATH": f"{bare_python.parent}:{os.environ['PATH']}"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    running = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        for _ in range(480):
            if running.is_up():
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
        else:
            pytest.fail(f"the server did not start:\n{log.read_text()}")
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(20)
