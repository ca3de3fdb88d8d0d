"""Fixtures shared by all tests: the real data beside the repository, the generated sample, its dataset."""

import gc
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from latentrec.cli import main
from latentrec.data import DataPrepConfig, generate_sample, prepare
from tests.worker_groups import GroupScheduling, longest_first

pytest_plugins = ["tests.fakes.fixtures", "tests.fixtures.tracked_run", "tests.fixtures.sketched_charts"]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def settings_stay_in_their_test() -> Iterator[None]:
    """A step that runs in a test makes the installation's settings MLflow's own, for its whole process."""

    def settings() -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if k.startswith(("MLFLOW_", "LATENTREC_"))}

    before = settings()
    yield
    for name in settings().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def refused_command(capsys, monkeypatch) -> Callable[..., None]:
    """Calls ``latentrec`` and expects exit code 2 and one line: this error code, and each of ``named``."""

    def run(arguments: list[str], code: str, *named: str) -> None:
        monkeypatch.setenv("LATENTREC_LOG_FORMAT", "json")
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
        (line,) = map(json.loads, capsys.readouterr().err.splitlines())
        assert line["error_code"] == code, line
        for name in named:
            assert name in line["message"]

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that ask for it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data is not here: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def sample_reviews(tmp_path_factory) -> tuple[Path, Path]:
    """(reviews.json, meta.json) of the generated sample."""
    return generate_sample(tmp_path_factory.mktemp("sample_reviews"))


@pytest.fixture(scope="session")
def sample_dataset(tmp_path_factory, sample_reviews) -> Path:
    """The dataset directory made of the generated sample, default configuration; treat it as read-only."""
    reviews, metadata = sample_reviews
    output = tmp_path_factory.mktemp("sample_dataset") / "dataset"
    prepare(DataPrepConfig(reviews=(str(reviews),), metadata=(str(metadata),)), output)
    return output


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What the imports have made stays: neither they nor any training's ``gc.collect()`` search it again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with what takes longest (tests/worker_groups.py)."""
    longest_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests, or a folder's, run on one worker: each makes dear fixtures once."""
    return GroupScheduling(config, log)
