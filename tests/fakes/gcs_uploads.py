"""Uploads of the fake Google Cloud Storage: media, multipart, and resumable with what it keeps of a chunk."""

from __future__ import annotations

import email.parser
import json
import re
import uuid
from typing import Any

from tests.fakes.gcs_objects import QUANTUM, ApiError, Content, Session, invalid


class Uploads:
    """The part of the request handler that takes objects in."""

    command: str
    headers: Any
    query: dict[str, str]
    server: Any
    fault: Any
    left: int
    _answer: Any
    _body: Any
    _chunks: Any
    _conditions: Any
    _drain: Any
    _reset: Any

    def _upload(self, bucket: str) -> None:
        if "upload_id" in self.query:
            self._continue_upload(self.query["upload_id"])
            return
        self.server.buckets.bucket(bucket)
        kind = self.query.get("uploadType")
        if kind == "media":
            content = self.server.buckets.new_content()
            with content.path.open("wb") as stream:
                self._receive(content, stream)
            self._store(
                bucket, self.query["name"], content, {"contentType": self.headers.get("Content-Type")}
            )
        elif kind == "multipart":
            metadata, data = self._multipart()
            content = self.server.buckets.new_content()
            with content.path.open("wb") as stream:
                content.append(stream, data)
            self._store(bucket, self.query.get("name") or metadata["name"], content, metadata)
        elif kind == "resumable":
            self._begin_upload(bucket)
        else:
            raise invalid(f"Invalid uploadType: {kind}")

    def _store(self, bucket: str, name: str, content: Content, metadata: dict[str, Any]) -> None:
        thing = self.server.buckets.put(bucket, name, content, metadata, self._conditions())
        self._answer(200, thing.resource(self.server.url))

    def _multipart(self) -> tuple[dict[str, Any], bytes]:
        kind = self.headers.get("Content-Type", "")
        found = re.search(r'boundary="?([^";]+)"?', kind)
        if not kind.startswith("multipart/related") or found is None:
            raise invalid("Missing or invalid multipart boundary.")
        body, boundary = self._body(), b"--" + found[1].strip("'").encode()
        if not body.rstrip().endswith(boundary + b"--"):
            raise invalid("The multipart body is not complete.")
        first, rest = body.split(boundary, 2)[1:]
        metadata = json.loads(first.partition(b"\r\n\r\n")[2])
        headers, _, data = rest.partition(b"\r\n\r\n")
        data = data[: data.rindex(b"\r\n" + boundary + b"--")]
        media_type = email.parser.BytesHeaderParser().parsebytes(headers.lstrip()).get("Content-Type")
        if self.fault and self.fault.kind == "corrupt_upload":
            data = flip_one_bit(data)
        return {"contentType": media_type, **metadata}, data

    def _begin_upload(self, bucket: str) -> None:
        metadata = json.loads(self._body() or b"{}")
        name = self.query.get("name") or metadata.get("name")
        if not name:
            raise invalid("Required parameter: name")
        self.server.buckets.check(self.server.buckets.bucket(bucket).get(name), self._conditions())
        metadata.setdefault("contentType", self.headers.get("X-Upload-Content-Type"))
        key = uuid.uuid4().hex
        content = self.server.buckets.new_content()
        self.server.buckets.sessions[key] = Session(bucket, name, metadata, self._conditions(), content)
        host = self.headers.get("Host")
        location = f"http://{host}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={key}"
        self._answer(200, None, {"Location": location, "X-GUploader-UploadID": key})

    def _continue_upload(self, key: str) -> None:
        session = self.server.buckets.sessions.get(key)
        if session is None:
            raise ApiError(404, "notFound", "No such upload session")
        if self.command == "DELETE":
            del self.server.buckets.sessions[key]
            session.content.remove()
            self._answer(499, None)
            return
        whole = f"bytes 0-{self.left - 1}/{self.left}" if self.left else "bytes */0"
        asked = self.headers.get("Content-Range", whole)
        wanted = re.match(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$", asked)
        if wanted is None:
            raise invalid(f"Failed to parse Content-Range header: {asked}")
        first, _, total = wanted.groups()
        with session.lock:
            if session.result is None:
                self._append(
                    session, int(first or session.content.size), None if total == "*" else int(total)
                )
            else:
                self._drain()
            if session.result is not None:
                self._answer(200, session.result.resource(self.server.url))
                return
            size = session.content.size
            self._answer(308, None, {"Range": f"bytes=0-{size - 1}"} if size else {})

    def _append(self, session: Session, start: int, total: int | None) -> None:
        content, before = session.content, (session.content.size, session.content.crc)
        if start > content.size:
            raise invalid(f"The upload has {content.size} bytes, the chunk begins at {start}.")
        with content.path.open("r+b") as stream:
            stream.seek(content.size)
            try:
                self._receive(content, stream, skip=content.size - start)
            finally:
                if content.size != total and (odd := content.size % QUANTUM):
                    stream.truncate(content.size - odd)
                    stream.flush()
                    content.size, content.crc = before[0], before[1]
                    content.reread(before[0])
        if content.size == total:
            claimed = re.search(r"crc32c=([^,]+)", self.headers.get("X-Goog-Hash", ""))
            metadata = {**session.metadata, **({"crc32c": claimed[1]} if claimed else {})}
            put = self.server.buckets.put
            session.result = put(session.bucket, session.name, content, metadata, session.conditions)

    def _receive(self, content: Content, stream: Any, skip: int = 0) -> None:
        """Read the request's body to disk; ``skip`` bytes are known already and passed over."""
        fault, done = self.fault, 0
        for data in self._chunks():
            if fault and fault.kind == "reset_upload" and done + len(data) > fault.after_bytes:
                content.append(stream, data[skip : max(fault.after_bytes - done, 0)])
                self._reset()
            if fault and fault.kind == "corrupt_upload" and done == 0:
                data = flip_one_bit(data)
            done += len(data)
            used = min(skip, len(data))
            skip -= used
            content.append(stream, data[used:])


def flip_one_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data
