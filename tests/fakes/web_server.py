"""A small web server with ranges, versions and faults, for reading over http."""

from __future__ import annotations

import re
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes.gcs_faults import Fault, FaultPlan


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: WebServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep test output clean."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        fault = self.server.faults.take("GET", self.path + (wanted or ""))
        if fault and fault.kind == "status":
            self._send(fault.status, b"", {})
            return
        if fault and fault.kind == "hang":
            self.server.stopping.wait()
            self.close_connection = True
            return
        if self.path in self.server.redirects:
            self._send(302, b"", {"Location": self.server.redirects[self.path]})
            return
        data = self.server.files.get(self.path)
        if data is None:
            self._send(404, b"", {})
            return
        headers = {"ETag": self.server.etag} if self.server.etag else {}
        status, start, end = 200, 0, len(data)
        if (
            wanted
            and self.server.ranges
            and self.headers.get("If-Range", self.server.etag) == self.server.etag
        ):
            first, last = re.match(r"bytes=(\d+)-(\d*)$", wanted).groups()
            start, end = int(first), min(int(last) + 1, len(data)) if last else len(data)
            if start >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._send(status, data[start:end], headers, fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str], fault: Fault | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, **self.server.extra_headers}.items():
            self.send_header(key, value)
        if self.server.tells_length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if fault and fault.kind in ("truncate", "reset_download"):
            self.wfile.write(body[: fault.after_bytes])
            self.close_connection = True
            if fault.kind == "reset_download":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            return
        self.wfile.write(body + b"x" * self.server.overrun)


class WebServer(ThreadingHTTPServer):
    """``files`` maps a path to its bytes; the rest are the ways in which servers differ."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.etag: str | None = '"one"'
        self.ranges = True
        self.tells_length = True
        self.overrun = 0
        self.extra_headers: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.faults = FaultPlan()
        self.requests: list[tuple[str, str | None]] = []
        self.stopping = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""
