"""Who types the documented commands: one reader a module, so that two modules can run side by side."""

import pytest

from tests.docs.reader import Reader


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    someone = Reader(tmp_path_factory.mktemp("clone"))
    yield someone
    someone.stop()
