"""A server of the KFP API, a clean environment, and the reviewed pipelines in place of compiling."""

import shutil
from pathlib import Path

import pytest

from pipeline import schedule, submit
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


GOLDEN = Path(__file__).parents[1] / "golden"
"""What compiles today: tests/pipeline/test_compile.py compares them byte for byte."""


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    """A clean environment, and compiled files that do not land in the checkout."""
    for name in VARIABLES:
        monkeypatch.delenv(f"KFP_{name}", raising=False)
    monkeypatch.setenv("LATENTREC_ALLOW_LOCAL_IMAGES", "true")

    def copies(output: Path, systems: tuple[str, ...]) -> list[Path]:
        output.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(GOLDEN / f"{system}.yaml", output)) for system in systems]

    for module in (submit, schedule):
        monkeypatch.setattr(module, "BUILD", tmp_path / "build")
        monkeypatch.setattr(module, "compile_pipelines", copies)


@pytest.fixture
def server(monkeypatch):
    running = KfpServer().start()
    monkeypatch.setenv("KFP_HOST", running.url)
    yield running
    running.stop()
