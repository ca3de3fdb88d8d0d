"""A server of the KFP API, a clean environment, and pipelines compiled once."""

import shutil
from pathlib import Path

import pytest

from pipeline import schedule, submit
from pipeline.compile import compile_pipelines
from tests.fakes.kfp_server import KfpServer

VARIABLES = (
    "TOKEN",
    "TOKEN_FILE",
    "COOKIES",
    "IAP_CLIENT_ID",
    "NAMESPACE",
    "EXPERIMENT",
    "SERVICE_ACCOUNT",
    "PIPELINE_ROOT",
    "CA_CERT",
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """Each pipeline that the tests use, compiled once."""
    output = tmp_path_factory.mktemp("compiled")
    compile_pipelines(output, ("latentr3", "lares"))
    return output


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path, compiled):
    """A clean environment, and compiled files that do not land in the checkout."""
    for name in VARIABLES:
        monkeypatch.delenv(f"KFP_{name}", raising=False)
    monkeypatch.setenv("LATENTREC_ALLOW_LOCAL_IMAGES", "true")

    def copies(output: Path, systems: tuple[str, ...]) -> list[Path]:
        output.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(compiled / f"{system}.yaml", output)) for system in systems]

    for module in (submit, schedule):
        monkeypatch.setattr(module, "BUILD", tmp_path / "build")
        monkeypatch.setattr(module, "compile_pipelines", copies)


@pytest.fixture
def server(monkeypatch):
    running = KfpServer().start()
    monkeypatch.setenv("KFP_HOST", running.url)
    yield running
    running.stop()
