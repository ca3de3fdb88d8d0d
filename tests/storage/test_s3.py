"""S3 over signed requests: the signature against Amazon's own example, preconditions, parts, lost answers."""

import gzip
import hashlib
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from latentrec.storage import ABSENT, PreconditionFailed, StorageError, s3, store_for
from latentrec.storage.s3_client import EMPTY_SHA256, S3Settings, sign
from tests.errors import refused


def test_the_signature_is_that_of_amazon_s_example():
    """The example "GET Object" of the S3 API reference, Signature Version 4, Authorization header."""
    settings = S3Settings(
        "https://examplebucket.s3.amazonaws.com",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    )
    now = datetime(2013, 5, 24, tzinfo=UTC)
    headers = sign(settings, "GET", "/test.txt", "", {"Range": "bytes=0-9"}, EMPTY_SHA256, now)
    assert headers["authorization"].endswith(
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


class Bucket(ThreadingHTTPServer):
    """Objects by key, with ETags and conditional writes.

    Attributes:
        objects: key → (content, metadata).
        conditions: whether the store knows conditional writes.
        lose_answers: how many successful writes are answered with HTTP 503.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.parts: dict[int, bytes] = {}
        self.mark: dict[str, str] = {}
        self.conditions, self.lose_answers = True, 0
        self.lifecycle: tuple[int, bytes] = (404, b"<Error><Code>NoSuchLifecycleConfiguration</Code></Error>")
        self.redirect, self.page = "", None


class Handler(BaseHTTPRequestHandler):
    server: Bucket

    def log_message(self, format: str, *arguments) -> None:
        pass

    def _reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        key, query = unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "Credential=key/" not in self.headers.get("Authorization", ""):
            return self._reply(403)
        assert hashlib.sha256(body).hexdigest() == self.headers["x-amz-content-sha256"]
        if "lifecycle" in query:
            return self._reply(*self.server.lifecycle)
        if self.server.redirect and key != urlsplit(self.server.redirect).path:
            return self._reply(307, Location=self.server.redirect)
        if self.server.page is not None:
            return self._reply(200, self.server.page)
        if "uploads" in query:
            self.server.mark = self._metadata()
            return self._reply(200, b"<R><UploadId>u1</UploadId></R>")
        if "partNumber" in query:
            self.server.parts[int(query["partNumber"][0])] = body
            return self._reply(200, ETag='"part"')
        if self.command in ("PUT", "POST"):
            whole = (
                b"".join(part for _, part in sorted(self.server.parts.items()))
                if "uploadId" in query
                else body
            )
            return self._put(key, whole, self.server.mark if "uploadId" in query else self._metadata())
        if self.command == "DELETE":
            self.server.objects.pop(key, None)
            return self._reply(204)
        if "list-type" in query:
            return self._list(key, query)
        return self._get(key)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _metadata(self) -> dict[str, str]:
        return {k: v for k, v in self.headers.items() if k.lower().startswith("x-amz-meta-")}

    def _put(self, key: str, body: bytes, metadata: dict[str, str]) -> None:
        there = self.server.objects.get(key)
        wanted, absent = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        if (wanted or absent) and not self.server.conditions:
            return self._reply(501)
        if (absent and there) or (wanted and (there is None or etag(there[0]) != wanted)):
            return self._reply(412)
        self.server.objects[key] = (body, metadata)
        if self.server.lose_answers:
            self.server.lose_answers -= 1
            return self._reply(503)
        return self._reply(200, ETag=etag(body))

    def _get(self, key: str) -> None:
        if key not in self.server.objects:
            return self._reply(404)
        body, metadata = self.server.objects[key]
        wanted = self.headers.get("Range")
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            body = body[int(first) : int(last) + 1]
        return self._reply(
            200, body, ETag=etag(self.server.objects[key][0]), Content_Length=str(len(body)), **metadata
        )

    def _list(self, bucket: str, query: dict) -> None:
        names = sorted(k for k in self.server.objects if k.startswith(f"{bucket}/{query['prefix'][0]}"))
        start = int(query.get("continuation-token", ["0"])[0])
        page = "".join(
            f"<Contents><Key>{name.removeprefix(bucket + '/')}</Key>"
            f"<Size>{len(self.server.objects[name][0])}</Size>"
            "<LastModified>2026-01-05T03:00:00.000Z</LastModified></Contents>"
            for name in names[start : start + 2]
        )
        more = start + 2 < len(names)
        page += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        page += f"<NextContinuationToken>{start + 2}</NextContinuationToken>" if more else ""
        self._reply(200, f'<L xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{page}</L>'.encode())


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


@pytest.fixture
def bucket(monkeypatch):
    server = Bucket()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("LATENTREC_S3_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("LATENTREC_S3_ACCESS_KEY", "key")
    monkeypatch.setenv("LATENTREC_S3_SECRET_KEY", "secret")
    monkeypatch.setenv("LATENTREC_STORAGE_RETRY_S", "3")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["s3", "minio"])
def store(bucket, request):
    return s3.S3Store(request.param)


def test_objects_are_written_read_listed_and_removed(store, tmp_path):
    for name in ("a", "b c", "d/e", "f"):
        store.write_bytes(f"s3://bucket/root/{name}", name.encode())
    assert store.read_bytes("s3://bucket/root/b c") == b"b c"
    assert [info.uri.rpartition("root/")[2] for info in store.list("s3://bucket/root/")] == [
        "a",
        "b c",
        "d/e",
        "f",
    ]
    store.download_file("s3://bucket/root/d/e", tmp_path / "e")
    assert (tmp_path / "e").read_bytes() == b"d/e"
    with store.open_read("s3://bucket/root/f") as stream:
        assert stream.read() == b"f"
    store.delete("s3://bucket/root/f")
    store.delete("s3://bucket/root/f")
    assert store.stat("s3://bucket/root/f") is None
    with pytest.raises(FileNotFoundError):
        store.read_bytes("s3://bucket/root/f")


@pytest.mark.parametrize("conditions", [True, False], ids=["conditional writes", "none"])
def test_preconditions_hold(store, bucket, conditions):
    bucket.conditions = conditions
    first = store.write_bytes("s3://bucket/x", b"1", if_version=ABSENT)
    with pytest.raises(PreconditionFailed):
        store.write_bytes("s3://bucket/x", b"2", if_version=ABSENT)
    second = store.write_bytes("s3://bucket/x", b"2", if_version=first.version)
    with pytest.raises(PreconditionFailed):
        store.write_bytes("s3://bucket/x", b"3", if_version=first.version)
    assert (store.read_bytes("s3://bucket/x"), second.version) == (b"2", etag(b"2"))


def test_an_object_stored_compressed_comes_as_it_is_stored(store, bucket, tmp_path):
    """Its ``Content-Encoding`` is metadata: inflated, its length would be another, or without end."""
    packed = gzip.compress(b"reviews" * 1000)
    bucket.objects["/bucket/x.gz"] = (packed, {"Content-Encoding": "gzip"})
    assert store.read_bytes("s3://bucket/x.gz") == packed
    store.download_file("s3://bucket/x.gz", tmp_path / "x.gz")
    assert (tmp_path / "x.gz").read_bytes() == packed


def test_a_netrc_does_not_replace_the_signature(store, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    store.write_bytes("s3://bucket/a", b"a")
    assert store.read_bytes("s3://bucket/a") == b"a"


def test_a_store_that_sends_more_than_was_asked_for_is_left(store, bucket, monkeypatch):
    monkeypatch.setattr("latentrec.storage.s3.MAX_SMALL", 1000)
    bucket.objects["/bucket/big"] = (b"x" * 5000, {})
    with refused("storage.bad_answer", "s3://bucket/big", "1,000 bytes", error=StorageError):
        store.read_bytes("s3://bucket/big")


def test_a_redirect_is_not_followed_with_the_signature(store, bucket):
    bucket.redirect = f"http://127.0.0.1:{bucket.server_address[1]}/bucket/other"
    bucket.objects["/bucket/other"] = (b"other", {})
    with refused("storage.bad_answer", "s3://bucket/a", "HTTP 307", error=StorageError):
        store.read_bytes("s3://bucket/a")


@pytest.mark.parametrize(
    "page",
    [b"", b"<html>login", b"<L><Contents><Key>a</Key><Size>many</Size></Contents></L>",
     b"<L><Contents><Key>a</Key><Size>1</Size><LastModified>yesterday</LastModified></Contents></L>"],
    ids=["empty", "web page", "size", "time"],
)  # fmt: skip
def test_a_list_that_is_none_is_one_line(store, bucket, page):
    bucket.page = page
    with refused("storage.bad_answer", "s3://bucket/", error=StorageError) as caught:
        list(store.list("s3://bucket/"))
    assert "\n" not in str(caught.value)


def test_a_lost_answer_of_a_create_once_is_known_for_its_own(store, bucket):
    bucket.lose_answers = 1
    store.write_bytes("s3://bucket/lock", b"mine", if_version=ABSENT)
    assert store.read_bytes("s3://bucket/lock") == b"mine"


RULES = b"""<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Rule><Status>Enabled</Status><Filter><Prefix>v2/</Prefix></Filter><Expiration><Days>30</Days></Expiration></Rule>
<Rule><Status>Disabled</Status><Filter></Filter><Expiration><Days>1</Days></Expiration></Rule>
<Rule><Status>Enabled</Status><Filter></Filter>
<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>
<Rule><Status>Enabled</Status><Filter></Filter>
<NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays></NoncurrentVersionExpiration></Rule>
</LifecycleConfiguration>"""


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((200, RULES), ["objects below 'v2/' after 30 days"]),
        ((404, b"<Error><Code>NoSuchLifecycleConfiguration</Code></Error>"), []),
        ((404, b"<Error><Code>NoSuchBucket</Code></Error>"), None),
        ((403, b""), None),
        ((501, b"<Error><Code>NotImplemented</Code></Error>"), None),
        ((200, b"not xml"), None),
    ],
)
def test_rules_that_delete_objects_are_read_where_the_store_shows_them(store, bucket, answer, found):
    bucket.lifecycle = answer
    assert store.deletion_rules("s3://b/v2/artifacts/latentr3") == found


def test_large_files_go_up_as_parts(store, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(s3, "PART", 1000)
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 10)
    store.upload_file(path, "s3://bucket/weights")
    assert len(bucket.parts) == 3
    assert store.read_bytes("s3://bucket/weights") == path.read_bytes()


def test_refused_keys_and_a_dead_endpoint_are_told(bucket, monkeypatch):
    monkeypatch.setenv("LATENTREC_S3_ACCESS_KEY", "other")
    with refused("storage.access_denied", "s3://bucket/x"):
        s3.S3Store().read_bytes("s3://bucket/x")
    monkeypatch.setenv("LATENTREC_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("LATENTREC_STORAGE_RETRY_S", "0.1")
    with refused("storage.no_answer", "s3://bucket/x", error=StorageError):
        s3.S3Store().read_bytes("s3://bucket/x")


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_both_schemes_reach_it(scheme):
    assert isinstance(store_for(f"{scheme}://bucket/x"), s3.S3Store)
