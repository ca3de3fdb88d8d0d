"""Google Cloud Storage behind the :class:`~latentrec.storage.types.Store` interface.

Every transfer is verified by crc32c in both directions, pinned to a generation and bounded in memory:
objects above :data:`COMPOSE_FROM` go up in parallel as parts that the service composes, and come down in
parallel by ranges. A write with a precondition has a mark of its own, so that a retry after a lost
answer can distinguish its own success from another writer's.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import google_crc32c
from google.cloud import storage

from latentrec.core import UserError
from latentrec.storage.gcs_client import Corrupted, GcsConnection, explained, repeat_if_corrupted
from latentrec.storage.lifecycle import google_rules
from latentrec.storage.local import temporary_beside
from latentrec.storage.ranges import BoundedBuffer, FileRangeWriter, FileWindow, crc32c_of
from latentrec.storage.transfer import (
    PIECE,
    RangeReader,
    Timeouts,
    crc32c_combine,
    crc32c_text,
    crc32c_value,
    pieces,
    transfer_progress,
    workers,
)
from latentrec.storage.types import ABSENT, ObjectInfo, PreconditionFailed, StorageError

COMPOSE_FROM = 64 << 20
"""Larger files are uploaded as parts at once."""
PARTS_SUFFIX = ".parts-"
"""Names of parts hold it; parts left by a killed upload are removed by garbage collection."""
_MAX_PARTS = 32
_ATTEMPTS = 3
_MARK = "latentrec-write"


class GcsStore:
    """Objects in Google Cloud Storage. Safe for use by several threads."""

    def __init__(self, timeouts: Timeouts | None = None):
        self._timeouts = timeouts or Timeouts.from_environment()
        self._connection = GcsConnection(self._timeouts)
        self._options: dict[str, Any] = {
            "timeout": self._timeouts.timeout,
            "retry": self._connection.retry,
        }

    def stat(self, uri: str) -> ObjectInfo | None:
        """Describe one object, or ``None`` where there is none."""
        bucket, name = self._split(uri)
        with explained(uri, self._timeouts):
            blob = self._connection.bucket(bucket).get_blob(name, **self._options)
        return None if blob is None else _info(blob)

    def open_read(self, uri: str) -> BinaryIO:
        """Open for sequential reading, one piece ahead; the crc32c is compared at the end."""
        blob, info = self._pinned(uri)

        def fetch(start: int, end: int) -> bytes:
            writer = io.BytesIO()
            self._fetch(blob, info, start, end, writer)
            return writer.getvalue()

        reader = RangeReader(uri, info.size, fetch, google_crc32c.extend, info.crc32c)
        return cast(BinaryIO, io.BufferedReader(reader, PIECE // 8))

    def read_bytes(self, uri: str) -> bytes:
        """Read a small object whole."""
        bucket, name = self._split(uri)

        def read() -> bytes:
            with explained(uri, self._timeouts):
                blob = self._connection.bucket(bucket).blob(name)
                taken = BoundedBuffer(uri)
                blob.download_to_file(taken, raw_download=True, checksum="crc32c", **self._options)
                return taken.getvalue()

        return repeat_if_corrupted(read)

    def write_bytes(self, uri: str, data: bytes, *, if_version: str | None = None) -> ObjectInfo:
        """Write atomically, under the precondition."""
        return self._upload(uri, lambda: io.BytesIO(data), len(data), google_crc32c.value(data), if_version)

    def upload_file(self, path: Path, uri: str, *, if_version: str | None = None) -> ObjectInfo:
        """Copy a local file to ``uri``, atomically, verified; large files as parallel parts."""
        size = Path(path).stat().st_size
        with transfer_progress(f"upload {uri}", size) as moved:
            if size > COMPOSE_FROM:
                return self._upload_parts(Path(path), uri, size, if_version, moved)
            crc = crc32c_of(path, 0, size)
            return self._upload(uri, lambda: FileWindow(path, 0, size, moved), size, crc, if_version)

    def download_file(self, uri: str, path: Path) -> None:
        """Copy ``uri`` to a local file, which appears whole and verified, or not at all."""

        def download() -> None:
            blob, info = self._pinned(uri)
            with temporary_beside(Path(path)) as temporary:
                try:
                    with transfer_progress(f"download {uri}", info.size) as moved:
                        crc = self._download_pieces(blob, info, temporary, moved)
                except (FileNotFoundError, PreconditionFailed):
                    raise Corrupted(f"{uri}: overwritten or removed during the download") from None
                if info.crc32c is not None and crc32c_text(crc) != info.crc32c:
                    raise Corrupted(
                        f"{uri}: the bytes received have crc32c {crc32c_text(crc)}, the store says "
                        f"{info.crc32c}; nothing was kept"
                    )
                os.replace(temporary, path)

        repeat_if_corrupted(download)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose location starts with ``prefix``, in order of name."""
        bucket, name = self._split(prefix, prefix=True)
        fields = "items(name,size,generation,crc32c,updated),nextPageToken"
        with explained(prefix, self._timeouts):
            found = self._connection.bucket(bucket).list_blobs(prefix=name, fields=fields, **self._options)
            for blob in found:
                if PARTS_SUFFIX not in blob.name:
                    yield _info(blob)

    def leftovers(self, prefix: str) -> Iterator[ObjectInfo]:
        """Parts of large uploads below ``prefix``: under way, or left by one that was killed."""
        bucket, name = self._split(prefix, prefix=True)
        with explained(prefix, self._timeouts):
            for blob in self._connection.bucket(bucket).list_blobs(prefix=name, **self._options):
                if PARTS_SUFFIX in blob.name:
                    yield _info(blob)

    def delete(self, uri: str, *, if_version: str | None = None) -> None:
        """Remove one object; it is no error when it is gone already."""
        bucket, name = self._split(uri)
        generation = None if if_version is None else _generation(if_version)
        with contextlib.suppress(FileNotFoundError), explained(uri, self._timeouts):
            self._connection.bucket(bucket).blob(name).delete(if_generation_match=generation, **self._options)

    def deletion_rules(self, uri: str) -> Sequence[str] | None:
        """The bucket's lifecycle rules that reach ``uri``; to read them takes ``storage.buckets.get``."""
        bucket, name = self._split(uri, prefix=True)
        try:
            with explained(uri, self._timeouts):
                found = self._connection.bucket(bucket)
                found.reload(**self._options)
        except (UserError, StorageError, FileNotFoundError):
            return None
        return google_rules(found.lifecycle_rules, name)

    def _upload(
        self, uri: str, source: Callable[[], Any], size: int, crc: int | None, if_version: str | None
    ) -> ObjectInfo:
        """Upload a stream; the service compares the crc32c before the object appears.

        ``crc`` is ``None`` for parts: their checksum is computed during the upload and compared afterwards.
        """
        bucket, name = self._split(uri)

        def upload(blob: storage.Blob) -> None:
            blob.chunk_size = PIECE
            with source() as stream:
                blob.upload_from_file(
                    stream,
                    size=size,
                    checksum="crc32c",
                    crc32c_checksum_value=None if crc is None else crc32c_text(crc),
                    if_generation_match=None if if_version is None else _generation(if_version),
                    **self._options,
                )

        return self._write(uri, self._connection_bucket(uri, bucket), name, crc, if_version, upload)

    def _upload_parts(
        self, path: Path, uri: str, size: int, if_version: str | None, moved: Callable[[int], None]
    ) -> ObjectInfo:
        """Upload ranges of the file at once, compose them under the precondition, remove them."""
        bucket_name, name = self._split(uri)
        bucket = self._connection_bucket(uri, bucket_name)
        stem = f"gs://{bucket_name}/{name}{PARTS_SUFFIX}{uuid.uuid4().hex[:12]}"
        ranges = pieces(size, max(COMPOSE_FROM // 2, -(-size // _MAX_PARTS)))
        stop = threading.Event()

        def part(number: int, start: int, end: int) -> ObjectInfo:
            if stop.is_set():
                raise StorageError(f"{uri}: the upload was given up", code="storage.no_answer")
            source = lambda: FileWindow(path, start, end, moved)  # noqa: E731
            return self._upload(f"{stem}/{number:02d}", source, end - start, None, ABSENT)

        def compose(blob: storage.Blob) -> None:
            blob.content_type = "application/octet-stream"
            blob.compose(
                [bucket.blob(self._split(info.uri)[1]) for info in parts],
                if_generation_match=None if if_version is None else _generation(if_version),
                if_source_generation_match=[int(info.version) for info in parts],
                **self._options,
            )

        try:
            with ThreadPoolExecutor(workers(), thread_name_prefix="upload") as pool:
                futures = [pool.submit(part, number, *ends) for number, ends in enumerate(ranges)]
                try:
                    parts = [future.result() for future in futures]
                except BaseException:
                    stop.set()
                    raise
            crc = 0
            for info in parts:
                crc = crc32c_combine(crc, crc32c_value(info.crc32c or ""), info.size)
            return self._write(uri, bucket, name, crc, if_version, compose)
        finally:
            for number in range(len(ranges)):
                with contextlib.suppress(StorageError, UserError):
                    self.delete(f"{stem}/{number:02d}")

    def _write(
        self,
        uri: str,
        bucket: storage.Bucket,
        name: str,
        crc: int | None,
        if_version: str | None,
        write: Callable[[storage.Blob], None],
    ) -> ObjectInfo:
        mark = uuid.uuid4().hex

        def attempt() -> ObjectInfo:
            blob = bucket.blob(name)
            blob.metadata = {_MARK: mark}
            try:
                with explained(uri, self._timeouts):
                    write(blob)
            except PreconditionFailed:
                with explained(uri, self._timeouts):
                    found = bucket.get_blob(name, **self._options)
                if found is None or (found.metadata or {}).get(_MARK) != mark:
                    expected = "nothing there" if if_version == ABSENT else f"version {if_version}"
                    raise PreconditionFailed(
                        f"{uri}: expected {expected}, found {found.generation if found else 'nothing'}"
                    ) from None
                blob = found  # this write had succeeded; only its answer was lost
            if crc is not None and blob.crc32c != crc32c_text(crc):
                raise Corrupted(
                    f"{uri}: sent crc32c {crc32c_text(crc)}, the store holds {blob.crc32c}; was the file "
                    "changed during the upload?"
                )
            return _info(blob)

        return repeat_if_corrupted(attempt)

    def _download_pieces(
        self, blob: storage.Blob, info: ObjectInfo, target: Path, moved: Callable[[int], None]
    ) -> int:
        """Fetch all ranges into ``target`` at once; returns the crc32c of the whole."""
        ranges = pieces(info.size)
        with target.open("r+b") as stream:
            stream.truncate(info.size)
            writers = [FileRangeWriter(stream.fileno(), start) for start, _ in ranges]

            def piece(index: int) -> None:
                self._fetch(blob, info, *ranges[index], writers[index])
                moved(writers[index].done)

            with ThreadPoolExecutor(workers(), thread_name_prefix="download") as pool:
                futures = [pool.submit(piece, index) for index in range(len(ranges))]
                try:
                    for future in futures:
                        future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        crc = 0
        for writer in writers:
            crc = crc32c_combine(crc, writer.crc, writer.done)
        return crc

    def _fetch(self, blob: storage.Blob, info: ObjectInfo, start: int, end: int, writer: Any) -> None:
        """Write exactly the bytes of one range, of this generation, into ``writer``."""
        for _ in range(_ATTEMPTS):
            writer.seek(0)
            with explained(info.uri, self._timeouts):
                blob.download_to_file(
                    writer,
                    start=start,
                    end=end - 1,
                    raw_download=True,
                    checksum=None,
                    single_shot_download=True,
                    if_generation_match=int(info.version),
                    **self._options,
                )
            if writer.tell() == end - start:
                return
        raise StorageError(
            f"{info.uri}: the store keeps sending {writer.tell()} of the {end - start} bytes from {start} on",
            code="storage.corrupted",
        )

    def _pinned(self, uri: str) -> tuple[storage.Blob, ObjectInfo]:
        bucket, name = self._split(uri)
        info = self.stat(uri)
        if info is None:
            raise FileNotFoundError(f"{uri} does not exist")
        return self._connection.bucket(bucket).blob(name, generation=int(info.version)), info

    def _connection_bucket(self, uri: str, bucket: str) -> storage.Bucket:
        with explained(uri, self._timeouts):
            return self._connection.bucket(bucket)

    @staticmethod
    def _split(uri: str, *, prefix: bool = False) -> tuple[str, str]:
        bucket, _, name = str(uri).partition("://")[2].partition("/")
        if not bucket or not (name or prefix):
            raise UserError(
                f"{uri}: expected gs://BUCKET/{'PREFIX' if prefix else 'NAME'}", code="storage.bad_uri"
            )
        return bucket, name


def _generation(if_version: str) -> int:
    return 0 if if_version == ABSENT else int(if_version)


def _info(blob: storage.Blob) -> ObjectInfo:
    return ObjectInfo(
        uri=f"gs://{blob.bucket.name}/{blob.name}",
        size=int(blob.size or 0),
        version=str(blob.generation),
        crc32c=blob.crc32c,
        updated=blob.updated.timestamp() if blob.updated else 0.0,
    )
