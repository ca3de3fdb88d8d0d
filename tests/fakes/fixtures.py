"""Pytest fixtures that offer the fakes to every test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.fakes.gcs_server import GcsServer

EXTERNAL_GCS = "LATENTREC_TEST_GCS"
"""Address of another emulator (http://127.0.0.1:4443), against which tests run in place of our own; with
``-n 0``, because its one bucket is emptied before each of them."""


class ExternalGcs:
    """An emulator that others wrote: what only ours can do (faults, a view inside) skips the test.

    Attributes:
        url: its address, without a slash at the end.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self._empty()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        pytest.skip(f"'{name}' is of our own server, {EXTERNAL_GCS} names another")

    def stop(self) -> None:
        """Leave it running: it is not ours."""

    def _empty(self) -> None:
        base, page = f"{self.url}/storage/v1/b", {"versions": "false"}
        requests.post(base, params={"project": "test"}, json={"name": "bucket"}, timeout=30)
        while True:
            answer = requests.get(f"{base}/bucket/o", params=page, timeout=30)
            answer.raise_for_status()
            for found in answer.json().get("items") or []:
                requests.delete(f"{base}/bucket/o/{quote(found['name'], safe='')}", timeout=30)
            if not (token := answer.json().get("nextPageToken")):
                return
            page = {"versions": "false", "pageToken": token}


@pytest.fixture
def gcs_server(tmp_path_factory, monkeypatch) -> Iterator[GcsServer | ExternalGcs]:
    """A fake Google Cloud Storage with the bucket ``bucket``; the client library is pointed at it."""
    server: GcsServer | ExternalGcs
    if external := os.environ.get(EXTERNAL_GCS):
        server = ExternalGcs(external)
    else:
        server = GcsServer(tmp_path_factory.mktemp("gcs")).start()
        server.buckets.create_bucket("bucket")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    yield server
    server.stop()
