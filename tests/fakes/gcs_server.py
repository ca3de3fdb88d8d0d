"""A Google Cloud Storage that enforces generations and commits faults on demand, for tests.

It speaks the published JSON API as google-cloud-storage uses it: buckets, objects, media, multipart and
resumable uploads, ranged downloads, lists, compose, rewrite, delete, with every generation precondition.
A query parameter that the published API does not know is answered with 400, so that a misspelt
precondition cannot pass unnoticed. Objects stream to and from disk.

In a test use the fixture ``gcs_server`` (``tests/fakes/fixtures.py``). Alone:

    python -m tests.fakes.gcs_server --port 9023 --bucket reviews --root DIR
    STORAGE_EMULATOR_HOST=http://localhost:9023 latentrec …

Faults are added with ``server.fail("status", status=503, times=3)`` or ``POST /_fake/faults``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import struct
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.fakes.gcs_faults import Fault, FaultPlan, fault_from_json
from tests.fakes.gcs_objects import CHUNK, ApiError, Buckets, base64_crc32c, invalid
from tests.fakes.gcs_uploads import Uploads, flip_one_bit

CONDITIONS = (
    "ifGenerationMatch",
    "ifGenerationNotMatch",
    "ifMetagenerationMatch",
    "ifMetagenerationNotMatch",
)
STANDARD = {"alt", "fields", "key", "prettyPrint", "quotaUser", "userProject", "projection"}
KNOWN = {
    "bucket": STANDARD
    | {"ifMetagenerationMatch", "ifMetagenerationNotMatch", "project", "prefix", "maxResults"},
    "list": STANDARD
    | {"prefix", "delimiter", "maxResults", "pageToken", "startOffset", "endOffset", "versions"}
    | {"includeTrailingDelimiter", "includeFoldersAsPrefixes", "softDeleted", "matchGlob"},
    "object": STANDARD | {*CONDITIONS, "generation", "predefinedAcl"},
    "compose": STANDARD
    | {"ifGenerationMatch", "ifMetagenerationMatch", "kmsKeyName", "destinationPredefinedAcl"},
    "rewrite": STANDARD
    | {
        *CONDITIONS,
        "destinationKmsKeyName",
        "destinationPredefinedAcl",
        "maxBytesRewrittenPerCall",
        "rewriteToken",
    }
    | {"sourceGeneration", *("ifSource" + name[2:] for name in CONDITIONS)},
    "upload": STANDARD
    | {*CONDITIONS, "uploadType", "upload_id", "name", "contentEncoding", "kmsKeyName", "predefinedAcl"},
}
ROUTES = [
    (re.compile(r"^/storage/v1/b$"), "buckets"),
    (re.compile(r"^/storage/v1/b/([^/]+)$"), "bucket"),
    (re.compile(r"^/storage/v1/b/([^/]+)/o$"), "list"),
    (re.compile(r"^/upload/(?:resumable/)?storage/v1/b/([^/]+)/o$"), "upload"),
    (re.compile(r"^/storage/v1/b/([^/]+)/o/([^/]+)/compose$"), "compose"),
    (re.compile(r"^/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)$"), "rewrite"),
    (re.compile(r"^/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)$"), "object"),
]


class _Dropped(Exception):
    """The connection was reset on purpose."""


class Handler(Uploads, BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: GcsServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep test output clean; requests are kept in ``server.requests``."""

    def _dispatch(self) -> None:
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.left = int(self.headers.get("Content-Length") or 0)
        self.fault: Fault | None = None
        try:
            if parts.path.startswith("/_fake/"):
                self._control(parts.path)
                return
            self.server.requests.append((self.command, self.path))
            self.fault = self.server.faults.take(self.command, self.path)
            self._suffer_before()
            for pattern, name in ROUTES:
                if match := pattern.match(parts.path):
                    known = KNOWN.get(name, KNOWN["bucket"])
                    if unknown := set(self.query) - known:
                        raise invalid(f"Invalid parameter: {sorted(unknown)[0]}")
                    getattr(self, f"_{name}")(*(unquote(group) for group in match.groups()))
                    return
            raise ApiError(404, "notFound", f"Not Found: {parts.path}")
        except ApiError as error:
            self._drain()
            self._answer(error.status, None if error.status == 304 else error.body())
        except (_Dropped, ConnectionError, TimeoutError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _dispatch

    # -- requests ---------------------------------------------------------------------------------------

    def _buckets(self) -> None:
        if self.command == "POST":
            name = json.loads(self._body())["name"]
            self.server.buckets.create_bucket(name)
            self._answer(200, _bucket_resource(name))
        else:
            items = [_bucket_resource(name) for name in self.server.buckets.names()]
            self._answer(200, {"kind": "storage#buckets", "items": items})

    def _bucket(self, bucket: str) -> None:
        self.server.buckets.bucket(bucket)
        if self.command == "DELETE":
            self.server.buckets.drop_bucket(bucket)
            self._answer(204, None)
        else:
            self._answer(200, _bucket_resource(bucket))

    def _list(self, bucket: str) -> None:
        objects, prefixes, token = self.server.buckets.list(bucket, self.query)
        body: dict[str, Any] = {"kind": "storage#objects"}
        if objects:
            body["items"] = [thing.resource(self.server.url) for thing in objects]
        if prefixes:
            body["prefixes"] = prefixes
        if token:
            body["nextPageToken"] = token
        self._answer(200, body)

    def _object(self, bucket: str, name: str) -> None:
        buckets = self.server.buckets
        if self.command == "DELETE":
            buckets.delete(bucket, name, self._conditions())
            self._answer(204, None)
        elif self.command == "PATCH":
            thing = buckets.patch(bucket, name, json.loads(self._body()), self._conditions())
            self._answer(200, thing.resource(self.server.url))
        elif self.query.get("alt") == "media":
            self._download(bucket, name)
        else:
            self._answer(200, buckets.get(bucket, name, self._conditions()).resource(self.server.url))

    def _download(self, bucket: str, name: str) -> None:
        thing, stream = self.server.buckets.open(bucket, name, self._conditions())
        with stream:
            size = thing.content.size
            start, end = 0, size
            if wanted := re.match(r"bytes=(\d*)-(\d*)$", self.headers.get("Range", "")):
                first, last = wanted.groups()
                start = int(first) if first else max(size - int(last), 0)
                end = min(int(last) + 1, size) if first and last else size
                if start >= size:
                    raise ApiError(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
            fault, length = self.fault, end - start
            if fault and fault.kind == "short":
                length = min(length, fault.after_bytes)
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            hashes = f"crc32c={base64_crc32c(thing.content.crc)}" + (f",md5={thing.md5}" if thing.md5 else "")
            for key, value in {
                "Content-Length": length,
                "Content-Type": thing.metadata.get("contentType") or "application/octet-stream",
                "ETag": f"CO{thing.generation}E=",
                "X-Goog-Hash": hashes,
                "X-Goog-Generation": thing.generation,
                "X-Goog-Metageneration": thing.metageneration,
                "X-Goog-Stored-Content-Length": size,
                "X-Goog-Stored-Content-Encoding": thing.metadata.get("contentEncoding", "identity"),
            }.items():
                self.send_header(key, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self._send_body(stream, start, length)

    def _send_body(self, stream: Any, start: int, length: int) -> None:
        fault = self.fault
        if fault and fault.kind in ("reset_download", "truncate"):
            self.wfile.write(stream.read(start, min(fault.after_bytes, length)))
            if fault.kind == "reset_download":
                self._reset()
            self.close_connection = True
        elif fault and fault.kind == "corrupt_download":
            self.wfile.write(flip_one_bit(stream.read(start, length)))
        else:
            for file, at, count in stream.spans(start, length):
                self.connection.sendfile(file, at, count)

    def _compose(self, bucket: str, name: str) -> None:
        request = json.loads(self._body())
        thing = self.server.buckets.compose(bucket, name, request, self._conditions())
        self._answer(200, thing.resource(self.server.url))

    def _rewrite(self, bucket: str, name: str, to_bucket: str, to_name: str) -> None:
        wanted = {"if" + key[8:]: value for key, value in self.query.items() if key.startswith("ifSource")}
        if "sourceGeneration" in self.query:
            wanted["generation"] = self.query["sourceGeneration"]
        source, stream = self.server.buckets.open(bucket, name, wanted)
        content = self.server.buckets.new_content()
        with stream, content.path.open("wb") as copy:
            for at in range(0, source.content.size, CHUNK):
                content.append(copy, stream.read(at, CHUNK))
        thing = self.server.buckets.put(to_bucket, to_name, content, source.metadata, self._conditions())
        size = str(content.size)
        body = {
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": size,
            "objectSize": size,
            "done": True,
        }
        self._answer(200, {**body, "resource": thing.resource(self.server.url)})

    # -- connection -------------------------------------------------------------------------------------

    def _chunks(self) -> Any:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while length := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return
        while self.left:
            data = self.rfile.read(min(CHUNK, self.left))
            if not data:
                raise ConnectionError("the client went away")
            self.left -= len(data)
            yield data

    def _body(self) -> bytes:
        return b"".join(self._chunks())

    def _drain(self) -> None:
        for _ in self._chunks():
            pass

    def _conditions(self) -> dict[str, str]:
        return {key: value for key, value in self.query.items() if key in (*CONDITIONS, "generation")}

    def _suffer_before(self) -> None:
        fault = self.fault
        if fault is None:
            return
        if fault.kind == "slow":
            self.server.stopping.wait(fault.seconds)
        elif fault.kind == "hang":
            self.server.stopping.wait()
            raise _Dropped
        elif fault.kind == "reset":
            self._reset()
        elif fault.kind == "status":
            reason = {401: "authError", 403: "forbidden", 429: "rateLimitExceeded"}.get(
                fault.status, "backendError"
            )
            raise ApiError(fault.status, reason, f"Fault on demand: {fault.status}")

    def _reset(self) -> None:
        """Close so that the peer sees a reset and not an orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise _Dropped

    def _answer(
        self, status: int, body: dict[str, Any] | None, headers: dict[str, str] | None = None
    ) -> None:
        if self.fault and self.fault.kind == "lost_answer":
            self._reset()
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if body is not None:
            self.send_header("Content-Type", "application/json; charset=UTF-8")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _control(self, path: str) -> None:
        """``/_fake/faults``: POST adds one, DELETE removes all; all show what is left and what was asked."""
        if path != "/_fake/faults":
            raise ApiError(404, "notFound", path)
        if self.command == "POST":
            self.server.faults.add(fault_from_json(json.loads(self._body())))
        elif self.command == "DELETE":
            self.server.faults.clear()
        self._answer(200, {"faults": self.server.faults.pending(), "requests": len(self.server.requests)})


class GcsServer(ThreadingHTTPServer):
    """The server; ``url`` is what ``STORAGE_EMULATOR_HOST`` must hold."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, root: Path, *, host: str = "127.0.0.1", port: int = 0):
        super().__init__((host, port), Handler)
        self.buckets = Buckets(root)
        self.faults = FaultPlan()
        self.requests: list[tuple[str, str]] = []
        self.stopping = threading.Event()
        shown = "127.0.0.1" if host == "0.0.0.0" else host
        self.url = f"http://{shown}:{self.server_address[1]}"

    def fail(self, kind: str, **details: Any) -> None:
        """Add a fault; see :class:`tests.fakes.gcs_faults.Fault`."""
        self.faults.add(Fault(kind, **details))

    def start(self) -> GcsServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event; anything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def _bucket_resource(name: str) -> dict[str, Any]:
    return {"kind": "storage#bucket", "id": name, "name": name, "location": "US", "storageClass": "STANDARD"}


def main() -> None:
    parser = argparse.ArgumentParser(description="fake Google Cloud Storage for tests")
    parser.add_argument("--port", type=int, default=9023)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--bucket", action="append", default=[], help="create this bucket; may be repeated")
    parser.add_argument("--root", type=Path, help="where objects lie; default: a temporary directory")
    arguments = parser.parse_args()
    root = arguments.root or Path(tempfile.mkdtemp(prefix="fake-gcs-"))
    root.mkdir(parents=True, exist_ok=True)
    server = GcsServer(root, host=arguments.host, port=arguments.port)
    for bucket in arguments.bucket:
        server.buckets.create_bucket(bucket)
    print(f"STORAGE_EMULATOR_HOST={server.url} pid={os.getpid()}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        if arguments.root is None:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
