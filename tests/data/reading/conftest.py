"""What every packing of the grid's reviews has to give."""

import pytest

from latentrec.data import DataPrepConfig, prepare
from tests.fixtures.review_files import grid, lines, write

ROWS = grid()


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    path = write(folder / "plain.json", lines(ROWS))
    return prepare(DataPrepConfig(reviews=(path,), k_core=1), folder / "expected").fingerprint
