"""Where the tests of this folder keep things: a local folder and a bucket."""

import pytest


@pytest.fixture(params=["local", "gs"])
def place(request, tmp_path) -> str:
    """A local folder's path, then an address in a bucket."""
    if request.param == "local":
        return str(tmp_path / "place")
    request.getfixturevalue("gcs_server")
    return "gs://bucket/place"
