"""Faults of the object store: retried within bounds, or one clear error; damage is never accepted."""

import os
import threading
import time
from unittest.mock import ANY

import pytest
import requests
from google.api_core import exceptions as api

from latentrec.core import UserError
from latentrec.storage import StorageError, store_for
from latentrec.storage.gcs_client import explained
from tests.errors import refused

SIZE = 9 << 20  # two pieces, and too large for an upload in one request
URI = "gs://bucket/folder/object.bin"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("LATENTREC_STORAGE_TIMEOUT_S", "0.5")
    monkeypatch.setenv("LATENTREC_STORAGE_RETRY_S", "3")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


PASSING = [
    {"kind": "status", "status": 503, "times": 3},
    {"kind": "status", "status": 500, "times": 2},
    {"kind": "status", "status": 429, "times": 2},
    {"kind": "reset", "times": 2},
    {"kind": "lost_answer", "times": 1, "skip": 1},
    {"kind": "hang", "times": 1},
    {"kind": "slow", "seconds": 0.2, "times": 3},
]
PASSING_UPLOAD = [
    {"kind": "reset_upload", "method": "PUT", "after_bytes": 3 << 20},
    {"kind": "reset_upload", "method": "PUT", "after_bytes": 700_001, "skip": 1},
    {"kind": "corrupt_upload", "method": "PUT"},
    {"kind": "lost_answer", "method": "PUT", "skip": 1},
]
PASSING_DOWNLOAD = [
    {"kind": "reset_download", "path": "alt=media", "after_bytes": 3 << 20},
    {"kind": "truncate", "path": "alt=media", "after_bytes": 3 << 20},
    {"kind": "short", "path": "alt=media", "after_bytes": 3 << 20},
    {"kind": "corrupt_download", "path": "alt=media"},
]


def label(fault: dict) -> str:
    return "-".join(str(value) for value in fault.values())


@pytest.mark.parametrize("fault", PASSING + PASSING_UPLOAD, ids=label)
def test_upload_survives_a_passing_fault(gcs_server, impatient, source, fault):
    store = store_for(URI)
    gcs_server.fail(**fault)
    info = store.upload_file(source, URI)
    assert gcs_server.faults.pending() == []
    assert info.size == SIZE
    assert store.read_bytes(URI) == source.read_bytes()


@pytest.mark.parametrize("fault", PASSING + PASSING_DOWNLOAD, ids=label)
def test_download_survives_a_passing_fault(gcs_server, impatient, source, tmp_path, fault):
    store = store_for(URI)
    store.upload_file(source, URI)
    gcs_server.fail(**fault)
    store.download_file(URI, tmp_path / "copy.bin")
    assert gcs_server.faults.pending() == []
    assert (tmp_path / "copy.bin").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("fault", PASSING_DOWNLOAD[:3], ids=label)
def test_reading_as_a_stream_survives_a_passing_fault(gcs_server, impatient, source, fault):
    store = store_for(URI)
    store.upload_file(source, URI)
    gcs_server.fail(**fault)
    with store.open_read(URI) as stream:
        assert stream.read() == source.read_bytes()


LASTING = [
    ({"kind": "status", "status": 503}, StorageError, "storage.no_answer"),
    ({"kind": "reset"}, StorageError, "storage.no_answer"),
    ({"kind": "hang"}, StorageError, "storage.no_answer"),
    ({"kind": "status", "status": 401}, UserError, "storage.access_denied"),
    ({"kind": "status", "status": 403}, UserError, "storage.access_denied"),
]
LASTING_UPLOAD = [({"kind": "corrupt_upload", "method": "PUT"}, StorageError, "storage.corrupted")]
LASTING_DOWNLOAD = [
    ({"kind": "corrupt_download", "path": "alt=media"}, StorageError, "storage.corrupted"),
    ({"kind": "short", "path": "alt=media", "after_bytes": 3 << 20}, StorageError, "storage.corrupted"),
    ({"kind": "truncate", "path": "alt=media", "after_bytes": 3 << 20}, StorageError, "storage.no_answer"),
]


@pytest.mark.parametrize(("fault", "error", "code"), LASTING + LASTING_UPLOAD, ids=lambda x: str(x)[:40])
def test_upload_under_a_lasting_fault_is_one_error_and_no_object(
    gcs_server, impatient, source, fault, error, code
):
    store = store_for(URI)
    store.write_bytes(URI, b"what stood there before")
    gcs_server.fail(**fault, times=-1)
    began = time.monotonic()
    with refused(code, URI, error=error) as caught:
        store.upload_file(source, URI)
    assert time.monotonic() - began < 10
    assert "upload_id" not in str(caught.value)
    gcs_server.faults.clear()
    assert store.read_bytes(URI) == b"what stood there before"


@pytest.mark.parametrize(("fault", "error", "code"), LASTING + LASTING_DOWNLOAD, ids=lambda x: str(x)[:40])
def test_download_under_a_lasting_fault_is_one_error_and_no_file(
    gcs_server, impatient, source, tmp_path, fault, error, code
):
    store = store_for(URI)
    store.upload_file(source, URI)
    gcs_server.fail(**fault, times=-1)
    copies = tmp_path / "copies"
    began = time.monotonic()
    with refused(code, URI, error=error):
        store.download_file(URI, copies / "copy.bin")
    assert time.monotonic() - began < 10
    assert not copies.exists() or list(copies.iterdir()) == []


def test_stream_that_stays_damaged_fails_before_its_end_is_believed(gcs_server, impatient, source):
    store = store_for(URI)
    store.upload_file(source, URI)
    gcs_server.fail("corrupt_download", path="alt=media", times=-1)
    with store.open_read(URI) as stream, refused("storage.corrupted", URI, error=StorageError):
        stream.read()


def test_bucket_that_is_not_there_is_an_input_error(gcs_server):
    with refused("storage.not_found", "gs://nowhere", "there"):
        store_for(URI).read_bytes("gs://nowhere/object")


def test_bucket_that_goes_away_is_an_input_error(gcs_server, source):
    store = store_for(URI)
    store.write_bytes(URI, b"x")
    gcs_server.buckets.drop_bucket("bucket")
    with refused("storage.not_found"):
        store.upload_file(source, URI)
    with refused("storage.not_found"):
        store.write_bytes(URI, b"x")


def test_missing_object_is_a_missing_file(gcs_server, tmp_path):
    store = store_for(URI)
    assert store.stat(URI) is None
    for read in (store.read_bytes, store.open_read, lambda uri: store.download_file(uri, tmp_path / "x")):
        with pytest.raises(FileNotFoundError):
            read(URI)


def test_dead_endpoint_is_found_within_seconds(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    began = time.monotonic()
    with refused("storage.no_answer", "http://127.0.0.1:9", "STORAGE_EMULATOR_HOST", error=StorageError):
        store_for(URI).stat(URI)
    assert time.monotonic() - began < 5


def test_no_credentials_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with refused("storage.no_credentials"):
        store_for(URI).stat(URI)


def test_object_overwritten_during_a_download_never_mixes(gcs_server, source, tmp_path):
    store = store_for(URI)
    store.upload_file(source, URI)
    newer = tmp_path / "newer.bin"
    newer.write_bytes(os.urandom(SIZE))
    real_fetch, fetched = store._fetch, []  # type: ignore[attr-defined]

    def fetch(blob, info, start, end, metric_logger):
        if not fetched:
            fetched.append(start)
            store.upload_file(newer, URI)
        return real_fetch(blob, info, start, end, metric_logger)

    store._fetch = fetch  # type: ignore[attr-defined]
    store.download_file(URI, tmp_path / "copy.bin")
    assert (tmp_path / "copy.bin").read_bytes() == newer.read_bytes()


def test_no_request_is_made_behind_the_callers_back(gcs_server, monkeypatch):
    """The library would look up the bucket, from a thread of its own, by a right that pods do not have."""
    asked, real_send = [], requests.adapters.HTTPAdapter.send

    def send(adapter, request, **options):
        asked.append((request.method, request.path_url.partition("?")[0], threading.current_thread().name))
        return real_send(adapter, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    store = store_for("gs://bucket/x")
    store.write_bytes("gs://bucket/x", b"small")
    assert store.read_bytes("gs://bucket/x") == b"small"
    assert ("GET", "/storage/v1/b/bucket", ANY) not in asked
    assert {thread for _, _, thread in asked} == {threading.current_thread().name}


@pytest.mark.parametrize("bucket", ["my-bucket", "objects-of-mine"])
def test_a_name_in_the_address_says_nothing_of_what_is_missing(bucket):
    """fake-gcs-server answers a missing object with "Not Found" alone, behind the address."""
    address = f"GET http://127.0.0.1/storage/v1/b/{bucket}/o/x"
    with pytest.raises(FileNotFoundError), explained(f"gs://{bucket}/x"):
        raise api.NotFound(f"{address}: Not Found")
    with refused("storage.not_found"), explained(f"gs://{bucket}/x"):
        raise api.NotFound(f"{address}: The specified bucket does not exist.")
