"""Reading over http: resumed, retried within bounds, length verified."""

import os
import threading
import time

import pytest

from latentrec.core import UserError
from latentrec.storage import StorageError, input_fingerprint, list_inputs, store_for
from latentrec.storage.http import HttpStore
from latentrec.storage.transfer import Timeouts
from tests.fakes.gcs_faults import Fault
from tests.fakes.web_server import WebServer

DATA = os.urandom(10_000_000)


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = WebServer()
    server.files["/reviews.json.gz"] = DATA
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.stopping.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def store() -> HttpStore:
    return HttpStore(Timeouts(connect=1, answer=0.5, retry=2))


@pytest.fixture
def uri(web) -> str:
    return f"{web.url}/reviews.json.gz"


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("tells_length", [True, False])
def test_every_kind_of_server_is_read_whole(web, store, uri, tmp_path, ranges, tells_length):
    web.ranges, web.tells_length = ranges, tells_length
    store.download_file(uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    with store.open_read(uri) as stream:
        assert stream.read() == DATA
    assert os.listdir(tmp_path) == ["copy"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=503, times=3),
        Fault("status", status=429, times=2),
        Fault("reset_download", after_bytes=3_000_000, skip=1),
        Fault("truncate", after_bytes=3_000_000, skip=1),
        Fault("hang", skip=1),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_passing_fault_is_survived(web, store, uri, tmp_path, fault):
    web.faults.add(fault)
    store.download_file(uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    assert web.faults.pending() == []


def resumed_at(web) -> int:
    return int(web.requests[-1][1].removeprefix("bytes=").rstrip("-"))


def test_broken_transfer_goes_on_where_it_stopped(web, store, uri, tmp_path):
    web.faults.add(Fault("truncate", after_bytes=3_000_000, skip=1))
    store.download_file(uri, tmp_path / "copy")
    assert [wanted for _, wanted in web.requests[:2]] == ["bytes=0-0", None]
    assert resumed_at(web) > 2_700_000


def test_interrupted_download_is_resumed_by_the_next_call(web, store, uri, tmp_path):
    web.faults.add(Fault("truncate", after_bytes=3_000_000, skip=1))
    web.faults.add(Fault("status", status=503, times=-1))
    web.faults._faults[1].skip = 1
    with pytest.raises(StorageError, match=r"no success for 2 s \(HTTP 503\).*goes on where it stopped"):
        store.download_file(uri, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    web.faults.clear()
    web.requests.clear()
    store.download_file(uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    assert resumed_at(web) > 2_700_000


def test_parts_of_another_version_are_not_used(web, store, uri, tmp_path):
    web.faults.add(Fault("truncate", after_bytes=3_000_000, skip=1, times=1))
    web.faults.add(Fault("status", status=500, times=-1, skip=1))
    with pytest.raises(StorageError):
        store.download_file(uri, tmp_path / "copy")
    web.faults.clear()
    web.etag, web.files["/reviews.json.gz"] = '"two"', DATA[::-1]
    store.download_file(uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA[::-1]


def test_content_that_changes_during_a_stream_is_an_error(web, store, uri):
    web.files["/reviews.json.gz"] = 4 * DATA
    with store.open_read(uri) as stream:
        stream.read(10)
        web.etag, web.files["/reviews.json.gz"] = '"two"', 4 * DATA[::-1]
        with pytest.raises(StorageError, match="changed while it was read"):
            stream.read()


def test_server_that_goes_silent_is_one_error_within_bounds(web, store, uri, tmp_path):
    web.faults.add(Fault("hang", times=-1))
    began = time.monotonic()
    with pytest.raises(StorageError, match="no answer"):
        store.download_file(uri, tmp_path / "copy")
    assert time.monotonic() - began < 5


def test_dead_host_is_one_error_within_bounds(store, tmp_path):
    began = time.monotonic()
    with pytest.raises(StorageError, match="no connection"):
        store.download_file("http://127.0.0.1:9/x", tmp_path / "copy")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_is_an_input_error(web, store, uri, status):
    web.faults.add(Fault("status", status=status))
    with pytest.raises(UserError, match=f"HTTP {status}, access denied"):
        store.read_bytes(uri)


def test_missing_file(web, store, tmp_path):
    uri = f"{web.url}/absent"
    assert store.stat(uri) is None
    with pytest.raises(FileNotFoundError):
        store.download_file(uri, tmp_path / "copy")
    with pytest.raises(UserError, match="no such file"):
        list_inputs(uri)


def test_empty_file_is_read(web, store, tmp_path):
    web.files["/empty"] = b""
    store.download_file(f"{web.url}/empty", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""
    assert store.read_bytes(f"{web.url}/empty") == b""


def test_the_web_cannot_be_written_or_listed(web, store, uri, tmp_path):
    (tmp_path / "x").write_text("x")
    for write in (
        lambda: store.write_bytes(uri, b"x"),
        lambda: store.upload_file(tmp_path / "x", uri),
        lambda: store.delete(uri),
    ):
        with pytest.raises(UserError, match="can only be read"):
            write()
    with pytest.raises(UserError, match="cannot be listed"):
        list(store.list(f"{web.url}/folder/"))


def test_fingerprint_follows_the_version(web, uri):
    assert isinstance(store_for(uri), HttpStore)
    before = input_fingerprint(uri)
    assert input_fingerprint(uri) == before
    web.etag = '"two"'
    assert input_fingerprint(uri) != before
