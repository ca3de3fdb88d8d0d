"""Fixtures shared by all tests: the real data beside the repository, the generated sample, its dataset."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentrec.data import DataPrepConfig, generate_sample, prepare

pytest_plugins = ["tests.fakes.fixtures", "tests.fixtures.tracked_run"]

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


_ONE_WORKER = ("registry", "steps", "tracking")
"""Folders of tests that run on one worker, so that their session fixtures are made once."""

_TRAINED = {
    "stage_1": "latentr3",
    "stage_2": "latentr3",
    "titles": "latentr3",
    "base": "rating",
}
"""Session fixtures that train, and the group of the tests that ask for them."""


@pytest.hookimpl(trylast=True)  # a folder's own choice comes first
def pytest_collection_modifyitems(items):
    """Tests that share an expensive fixture share a worker: else each worker would make its own."""
    here = Path(__file__).parent
    for item in items:
        group = None
        if item.path.is_relative_to(here) and item.path.relative_to(here).parts[0] in _ONE_WORKER:
            group = "tracking"
        elif trained := {_TRAINED[n] for n in getattr(item, "fixturenames", ()) if n in _TRAINED}:
            group = f"{min(trained)}_trained"
        elif any(found[-1].scope == "module" for found in _fixtures_of(item) if found):
            group = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else None
        if group and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))


def _fixtures_of(item):
    """The definitions of every fixture that a test needs, directly or through others."""
    info = getattr(item, "_fixtureinfo", None)
    return info.name2fixturedefs.values() if info is not None else ()
