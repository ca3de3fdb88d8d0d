"""S3, MinIO and SeaweedFS behind the :class:`~latentrec.storage.types.Store` interface: ``s3://`` and ``minio://``.

Uploads include the sha256 of what is sent, which the store compares; large files go up as parts. Downloads
are pinned to an ETag and their length is checked. Preconditions are the store's own (``If-Match``,
``If-None-Match``). A store without them (HTTP 501) gets a check before the write, which two
writers at once can pass both.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, cast
from xml.etree import ElementTree

from latentrec.core import UserError
from latentrec.core.text import one_line
from latentrec.storage.lifecycle import S3_GONE, s3_rules
from latentrec.storage.local import temporary_beside
from latentrec.storage.s3_client import S3Client, S3Settings, error_code
from latentrec.storage.transfer import PIECE, RangeReader, Timeouts, pieces, transfer_progress
from latentrec.storage.types import ABSENT, MAX_SMALL, ObjectInfo, PreconditionFailed, StorageError

PART = 64 << 20
"""Files larger than this go up as parts of this size; 10,000 parts at most."""
_MARK = "x-amz-meta-latentrec-write"


class S3Store:
    """Objects of an S3-compatible store. Safe for use by several threads."""

    def __init__(self, scheme: str = "s3", settings: S3Settings | None = None) -> None:
        self._scheme = scheme
        self._client = S3Client(settings or S3Settings.from_environment(), Timeouts.from_environment())

    def stat(self, uri: str) -> ObjectInfo | None:
        """Describe one object, or ``None`` where there is none."""
        found = self._head(uri)
        return None if found is None else found[0]

    def open_read(self, uri: str) -> BinaryIO:
        """Open for sequential reading, one piece ahead, of one version of the object."""
        info = self._existing(uri)
        reader = RangeReader(uri, info.size, lambda start, end: self._range(info, start, end))
        return cast(BinaryIO, io.BufferedReader(reader, PIECE // 8))

    def read_bytes(self, uri: str) -> bytes:
        """Read a small object whole."""
        return self._client.request("GET", *self._split(uri), limit=MAX_SMALL).content

    def write_bytes(self, uri: str, data: bytes, *, if_version: str | None = None) -> ObjectInfo:
        """Write atomically, under the precondition."""
        return self._put(
            uri, lambda: io.BytesIO(data), len(data), hashlib.sha256(data).hexdigest(), if_version
        )

    def upload_file(self, path: Path, uri: str, *, if_version: str | None = None) -> ObjectInfo:
        """Copy a local file to ``uri``, atomically, verified."""
        size = Path(path).stat().st_size
        with transfer_progress(f"upload {uri}", size) as moved:
            if size > PART:
                return self._upload_parts(Path(path), uri, size, if_version, moved)
            with Path(path).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            source = lambda: Path(path).open("rb")  # noqa: E731, SIM115  (the request closes it)
            info = self._put(uri, source, size, digest, if_version)
            moved(size)
            return info

    def download_file(self, uri: str, path: Path) -> None:
        """Copy ``uri`` to a local file, which appears whole, or not at all."""
        info = self._existing(uri)
        with temporary_beside(Path(path)) as temporary:
            with (
                temporary.open("wb") as stream,
                transfer_progress(f"download {uri}", info.size) as moved,
            ):
                for start, end in pieces(info.size):
                    stream.write(self._range(info, start, end))
                    moved(end - start)
            os.replace(temporary, path)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose location starts with ``prefix``, in order of name."""
        bucket, name = self._split(prefix, prefix=True)
        token = ""
        while True:
            query = {"list-type": "2", "prefix": name} | ({"continuation-token": token} if token else {})
            page = _parsed(self._client.request("GET", bucket, query=query).content, prefix)
            for entry in page.iter("Contents"):
                try:
                    size, updated = int(entry.findtext("Size") or 0), _seconds(entry.findtext("LastModified"))
                except ValueError as error:
                    raise StorageError(
                        f"{prefix}: not a list of objects ({one_line(error)})", code="storage.bad_answer"
                    ) from None
                yield ObjectInfo(
                    uri=f"{self._scheme}://{bucket}/{entry.findtext('Key')}",
                    size=size,
                    version=entry.findtext("ETag") or "",
                    updated=updated,
                )
            token = page.findtext("NextContinuationToken") or ""
            if page.findtext("IsTruncated") != "true" or not token:
                return

    def leftovers(self, prefix: str) -> Iterator[ObjectInfo]:
        """Nothing: parts of an upload that was killed are no objects; a lifecycle rule removes them."""
        return iter(())

    def delete(self, uri: str, *, if_version: str | None = None) -> None:
        """Remove one object; it is no error when it is gone already."""
        if if_version is not None:
            info = self.stat(uri)
            if info is None:
                return
            if info.version != if_version:
                raise PreconditionFailed(f"{uri}: expected version {if_version}, found {info.version}")
        self._client.request("DELETE", *self._split(uri), missing_ok=True)

    def deletion_rules(self, uri: str) -> Sequence[str] | None:
        """The bucket's lifecycle rules that reach ``uri``; ``None`` where they may not be read."""
        bucket, name = self._split(uri, prefix=True)
        try:
            answer = self._client.request("GET", bucket, query={"lifecycle": ""}, missing_ok=True)
            if answer.status_code == 404:
                return [] if error_code(answer) == S3_GONE else None
            return s3_rules(answer.content, name)
        except (UserError, StorageError, ElementTree.ParseError):
            return None

    def _put(
        self, uri: str, source: Callable[[], BinaryIO], size: int, sha256: str, if_version: str | None
    ) -> ObjectInfo:
        bucket, key = self._split(uri)
        mark = uuid.uuid4().hex
        headers = {"content-length": str(size), _MARK: mark}

        def put(condition: dict[str, str]) -> None:
            body = source if size else b""
            self._client.request("PUT", bucket, key, headers=headers | condition, body=body, sha256=sha256)

        return self._conditional(uri, mark, if_version, put)

    def _conditional(
        self, uri: str, mark: str, if_version: str | None, write: Callable[[dict[str, str]], None]
    ) -> ObjectInfo:
        """Write under a precondition; a retry after a lost answer recognizes its own write by its mark."""
        condition = {}
        if if_version is not None:
            found = self._head(uri)
            there = ABSENT if found is None else found[0].version
            if there != if_version:
                raise PreconditionFailed(f"{uri}: expected version {if_version}, found {there}")
            condition = {"if-none-match": "*"} if if_version == ABSENT else {"if-match": if_version}
        try:
            write(condition)
        except PreconditionFailed:
            found = self._head(uri)
            if found is None or found[1] != mark:
                raise
        except StorageError as error:
            if not condition or "HTTP 501" not in str(error):
                raise
            write({})  # the store has no conditional writes: the check above is all there is
        return self._existing(uri)

    def _upload_parts(
        self, path: Path, uri: str, size: int, if_version: str | None, moved: Callable[[int], None]
    ) -> ObjectInfo:
        bucket, key = self._split(uri)
        mark = uuid.uuid4().hex
        begun = self._client.request("POST", bucket, key, query={"uploads": ""}, headers={_MARK: mark})
        upload = _parsed(begun.content, uri).findtext("UploadId") or ""
        try:
            parts = []
            for number, (start, end) in enumerate(pieces(size, max(PART, -(-size // 10_000))), 1):
                with path.open("rb") as stream:
                    stream.seek(start)
                    data = stream.read(end - start)
                answer = self._client.request(
                    "PUT",
                    bucket,
                    key,
                    query={"partNumber": str(number), "uploadId": upload},
                    headers={"content-length": str(len(data))},
                    body=data,
                    sha256=hashlib.sha256(data).hexdigest(),
                )
                parts.append(
                    f"<Part><PartNumber>{number}</PartNumber><ETag>{answer.headers['ETag']}</ETag></Part>"
                )
                moved(end - start)
            whole = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()

            def complete(condition: dict[str, str]) -> None:
                answer = self._client.request(
                    "POST",
                    bucket,
                    key,
                    query={"uploadId": upload},
                    headers=condition,
                    body=whole,
                    sha256=hashlib.sha256(whole).hexdigest(),
                )
                if b"<Error>" in answer.content:  # the store may fail after it has sent HTTP 200
                    code = error_code(answer) or "no reason given"
                    raise StorageError(
                        f"{uri}: the parts could not be put together ({code})", code="storage.bad_answer"
                    )

            return self._conditional(uri, mark, if_version, complete)
        except BaseException:
            with contextlib.suppress(StorageError, UserError, FileNotFoundError):
                self._client.request("DELETE", bucket, key, query={"uploadId": upload}, missing_ok=True)
            raise

    def _head(self, uri: str) -> tuple[ObjectInfo, str] | None:
        """The object and the mark of the write that made it."""
        answer = self._client.request("HEAD", *self._split(uri), missing_ok=True)
        if answer.status_code == 404:
            return None
        headers = answer.headers
        changed = headers.get("Last-Modified")
        info = ObjectInfo(
            uri=str(uri),
            size=int(headers.get("Content-Length") or 0),
            version=headers.get("ETag", ""),
            updated=parsedate_to_datetime(changed).timestamp() if changed else 0.0,
        )
        return info, headers.get(_MARK, "")

    def _existing(self, uri: str) -> ObjectInfo:
        info = self.stat(uri)
        if info is None:
            raise FileNotFoundError(f"{uri} does not exist")
        return info

    def _range(self, info: ObjectInfo, start: int, end: int) -> bytes:
        headers = {"range": f"bytes={start}-{end - 1}", "if-match": info.version}
        try:
            answer = self._client.request("GET", *self._split(info.uri), headers=headers, limit=end - start)
            data = answer.content
        except PreconditionFailed:
            raise StorageError(
                f"{info.uri}: overwritten while it was read; read it again", code="storage.changed"
            ) from None
        if len(data) != end - start:
            raise StorageError(
                f"{info.uri}: {len(data)} of {end - start} bytes from {start} on", code="storage.corrupted"
            )
        return data

    @staticmethod
    def _split(uri: str, *, prefix: bool = False) -> tuple[str, str]:
        scheme, _, rest = str(uri).partition("://")
        bucket, _, name = rest.partition("/")
        if not bucket or not (name or prefix):
            raise UserError(
                f"{uri}: expected {scheme}://BUCKET/{'PREFIX' if prefix else 'NAME'}", code="storage.bad_uri"
            )
        return bucket, name


def _parsed(content: bytes, uri: str) -> ElementTree.Element:
    """An answer in XML, its namespaces taken off."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise StorageError(
            f"{uri}: the answer is not XML of S3 ({one_line(error)})", code="storage.bad_answer"
        ) from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _seconds(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
