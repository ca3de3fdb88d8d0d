"""What every packing of the grid's reviews has to give."""

import pytest

from latentrec.data import DataPrepConfig, prepare
from tests.fixtures.review_files import grid, lines, write

ROWS = grid()


@pytest.fixture
def expected(tmp_path):
    path = write(tmp_path / "plain.json", lines(ROWS))
    return prepare(DataPrepConfig(reviews=(path,), k_core=1), tmp_path / "expected").fingerprint
