"""Reading over http: resumed, retried within bounds, length verified."""

import gzip
import os
import socket
import threading
import time

import pytest

from latentrec.core import UserError
from latentrec.storage import StorageError, input_fingerprint, list_inputs, store_for
from latentrec.storage.http import HttpStore
from latentrec.storage.transfer import Timeouts
from tests.errors import refused
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
    with refused("storage.no_answer", uri, "2 s", "HTTP 503", error=StorageError):
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
        with refused("storage.changed", uri, error=StorageError):
            stream.read()


def test_server_that_goes_silent_is_one_error_within_bounds(web, store, uri, tmp_path):
    web.faults.add(Fault("hang", times=-1))
    began = time.monotonic()
    with refused("storage.no_answer", uri, error=StorageError):
        store.download_file(uri, tmp_path / "copy")
    assert time.monotonic() - began < 5


def test_dead_host_is_one_error_within_bounds(store, tmp_path):
    began = time.monotonic()
    with refused("storage.no_answer", "http://127.0.0.1:9/x", error=StorageError):
        store.download_file("http://127.0.0.1:9/x", tmp_path / "copy")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_is_an_input_error(web, store, uri, status):
    web.faults.add(Fault("status", status=status))
    with refused("storage.access_denied", uri, f"HTTP {status}"):
        store.read_bytes(uri)


def test_missing_file(web, store, tmp_path):
    uri = f"{web.url}/absent"
    assert store.stat(uri) is None
    with pytest.raises(FileNotFoundError):
        store.download_file(uri, tmp_path / "copy")
    with refused("storage.not_found", uri):
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
        with refused("storage.read_only"):
            write()
    with refused("storage.cannot_list"):
        list(store.list(f"{web.url}/folder/"))


def test_fingerprint_follows_the_version(web, uri):
    assert isinstance(store_for(uri), HttpStore)
    before = input_fingerprint(uri)
    assert input_fingerprint(uri) == before
    web.etag = '"two"'
    assert input_fingerprint(uri) != before


def answer_with(web, **headers: str) -> None:
    web.extra_headers = {name.replace("_", "-"): value for name, value in headers.items()}


def test_body_that_is_labeled_as_compressed_is_taken_as_it_is(web, store, tmp_path):
    packed = gzip.compress(b"x" * 1_000_000)
    web.files["/x.json.gz"] = packed
    answer_with(web, Content_Encoding="gzip")
    for web.ranges in (True, False):
        store.download_file(f"{web.url}/x.json.gz", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == packed
        with store.open_read(f"{web.url}/x.json.gz") as stream:
            assert stream.read() == packed


@pytest.mark.parametrize("size", ["100000000000000000000", "9" * 5000])
def test_size_that_no_file_has_is_not_believed(web, store, uri, tmp_path, size):
    answer_with(web, Content_Range=f"bytes 0-0/{size}")
    for attempt in (
        lambda: store.open_read(uri),
        lambda: store.stat(uri),
        lambda: store.download_file(uri, tmp_path / "copy"),
    ):
        with refused("storage.bad_answer", uri, size[:20], error=StorageError):
            attempt()


@pytest.mark.parametrize("length", ["many", "-5", "0x10", "１"])
def test_length_that_is_no_number_counts_as_not_told(length):
    from requests.structures import CaseInsensitiveDict

    from latentrec.storage.http_guard import announced_size, ranged_size

    assert announced_size(CaseInsensitiveDict({"content-length": length}), "https://e.org") == -1
    assert ranged_size(CaseInsensitiveDict({"content-range": f"bytes 0-0/{length}"}), "https://e.org") == -1


def test_server_that_sends_more_than_it_announced_is_one_error(web, store, uri, tmp_path):
    web.overrun, web.tells_length = 1 << 20, False
    with refused("storage.bad_answer", uri, error=StorageError):
        store.download_file(uri, tmp_path / "copy")
    with store.open_read(uri) as stream, refused("storage.bad_answer", error=StorageError):
        stream.read()
    assert not (tmp_path / "copy").exists()


def test_server_that_starts_over_for_ever_is_given_up(web, store, uri, tmp_path):
    web.ranges = False
    web.faults.add(Fault("truncate", after_bytes=3_000_000, times=-1, skip=1))
    began = time.monotonic()
    with refused("storage.no_answer", uri, "2 s", error=StorageError):
        store.download_file(uri, tmp_path / "copy")
    assert time.monotonic() - began < 20


def test_file_read_into_memory_has_a_bound(web, store, uri, monkeypatch):
    monkeypatch.setattr("latentrec.storage.http.MAX_SMALL", 1 << 20)
    with refused("storage.too_large", uri, error=StorageError):
        store.read_bytes(uri)


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://localhost:9/x",
        "http://10.0.0.1/x",
        "gopher://e.org/",
    ],
)
def test_redirect_to_another_scheme_or_a_private_host_is_refused(web, store, uri, tmp_path, target):
    web.redirects["/reviews.json.gz"] = target
    began = time.monotonic()
    for attempt in (lambda: store.download_file(uri, tmp_path / "copy"), lambda: store.read_bytes(uri)):
        with refused("storage.refused_redirect"):
            attempt()
    assert time.monotonic() - began < 2
    assert os.listdir(tmp_path) == []


def test_redirect_on_the_same_host_is_followed(web, store, tmp_path):
    web.redirects["/old"] = "/reviews.json.gz"
    store.download_file(f"{web.url}/old", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    web.redirects["/loop"] = "/loop"
    with refused("storage.refused_redirect", "5"):
        store.stat(f"{web.url}/loop")


def test_signature_is_in_no_message_and_in_no_file(web, store, tmp_path, caplog):
    address = web.url.replace("http://", "http://ann:hunter2@") + "/absent?sig=s3cret"
    messages = []
    for attempt in (
        lambda: store.read_bytes(address),
        lambda: list(store.list(address)),
        lambda: store.write_bytes(address, b""),
        lambda: list_inputs(address),
    ):
        with pytest.raises((UserError, FileNotFoundError)) as caught:
            attempt()
        messages.append(str(caught.value))
    web.files["/x?sig=s3cret"] = DATA
    web.faults.add(Fault("truncate", after_bytes=3_000_000, skip=1))
    web.faults.add(Fault("status", status=503, times=-1, skip=1))
    with pytest.raises(StorageError) as caught:
        store.download_file(f"{web.url}/x?sig=s3cret", tmp_path / "copy")
    told = " ".join([*messages, str(caught.value), caplog.text])
    left = b" ".join(path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".json")
    for secret in ("hunter2", "s3cret"):
        assert secret not in told
        assert secret.encode() not in left


def test_a_host_that_never_answers_is_given_up_within_seconds(monkeypatch):
    monkeypatch.setattr("latentrec.storage.http._FIRST_S", 1.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    store = HttpStore(Timeouts(connect=5, answer=5, retry=120))
    begin = time.monotonic()
    with refused("storage.no_answer", str(port), "1 s", error=StorageError):
        store.stat(f"http://127.0.0.1:{port}/reviews.json")
    assert time.monotonic() - begin < 10
