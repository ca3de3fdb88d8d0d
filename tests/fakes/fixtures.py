"""Pytest fixtures that offer the fakes to every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.gcs_server import GcsServer


@pytest.fixture
def gcs_server(tmp_path_factory, monkeypatch) -> Iterator[GcsServer]:
    """A fake Google Cloud Storage with the bucket ``bucket``; the client library is pointed at it."""
    server = GcsServer(tmp_path_factory.mktemp("gcs")).start()
    server.buckets.create_bucket("bucket")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    yield server
    server.stop()
