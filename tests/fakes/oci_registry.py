"""A small image registry: as much of the OCI distribution API as a push and a pull need.

Written from https://github.com/opencontainers/distribution-spec (v1.1): blobs by upload session, manifests by
tag and by digest. What arrives is held against its digest.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Registry(ThreadingHTTPServer):
    """Keeps blobs in a folder and manifests in memory.

    Attributes:
        folder: of the blobs, by digest.
        manifests: (media type, content) by (repository, tag or digest).
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def start(self) -> Registry:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def blob(self, digest: str) -> Path:
        return self.folder / digest.replace(":", "-")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep test output clean."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/v2/":
            return self._answer(200)
        if found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            kept = self.server.manifests.get((found[1], found[2]))
            if kept is None:
                return self._answer(404, json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN"}]}).encode())
            kind, body = kept
            return self._answer(200, body, {"Content-Type": kind, "Docker-Content-Digest": _digest(body)})
        if found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})", path):
            file = self.server.blob(found[2])
            return self._answer(200, file.read_bytes()) if file.is_file() else self._answer(404)
        return self._answer(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._take(None)
        name = re.fullmatch(r"/v2/(.+)/blobs/uploads/?", urlsplit(self.path).path)
        if name is None:
            return self._answer(404)
        return self._answer(202, headers=self._session(name[1], uuid.uuid4().hex))

    def do_PATCH(self) -> None:
        name, session = self._upload()
        with (self.server.folder / session).open("ab") as stream:
            self._take(stream)
        self._answer(202, headers=self._session(name, session))

    def do_PUT(self) -> None:
        parts = urlsplit(self.path)
        if found := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", parts.path):
            file = self.server.folder / uuid.uuid4().hex
            with file.open("wb") as stream:
                self._take(stream)
            body = file.read_bytes()
            for name in (found[2], _digest(body)):
                self.server.manifests[(found[1], name)] = (self.headers["Content-Type"], body)
            return self._answer(201, headers={"Docker-Content-Digest": _digest(body)})
        name, session = self._upload()
        file = self.server.folder / session
        with file.open("ab") as stream:
            self._take(stream)
        (digest,) = parse_qs(parts.query)["digest"]
        with file.open("rb") as stream:
            if f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}" != digest:
                return self._answer(400)
        file.rename(self.server.blob(digest))
        return self._answer(201, headers={"Location": f"/v2/{name}/blobs/{digest}"})

    def _upload(self) -> tuple[str, str]:
        found = re.fullmatch(r"/v2/(.+)/blobs/uploads/([0-9a-f]{32})", urlsplit(self.path).path)
        assert found is not None, self.path
        return found[1], found[2]

    def _session(self, name: str, session: str) -> dict[str, str]:
        file = self.server.folder / session
        size = file.stat().st_size if file.exists() else 0
        return {
            "Location": f"/v2/{name}/blobs/uploads/{session}",
            "Docker-Upload-UUID": session,
            "Range": f"0-{max(0, size - 1)}",
        }

    def _take(self, stream: Any) -> None:
        """The request's body, to a stream or to nowhere."""
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        left = 0 if chunked else int(self.headers.get("Content-Length") or 0)
        while chunked or left:
            if chunked and not left:
                left = int(self.rfile.readline().split(b";")[0], 16)
                if not left:
                    self.rfile.readline()
                    return
            piece = self.rfile.read(min(left, 1 << 20))
            left -= len(piece)
            if stream is not None:
                stream.write(piece)
            if chunked and not left:
                self.rfile.readline()

    def _answer(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
