"""What the fake Google Cloud Storage remembers: buckets, objects with generations, upload sessions.

Content lies in files, so that objects of any size pass through with little memory. Preconditions are
checked and acted on under one lock, as the service does it: of any number of writers that race with
``ifGenerationMatch=0`` exactly one wins.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google_crc32c

from latentrec.storage.transfer import crc32c_combine

CHUNK = 1 << 20
QUANTUM = 256 * 1024
"""Resumable uploads persist whole multiples of this; only the last chunk may have another size."""
MD5_LIMIT = 8 << 20
"""Larger objects carry a crc32c only, as the service's composite objects do."""


class ApiError(Exception):
    """An answer of the API that is not a success."""

    def __init__(self, status: int, reason: str, message: str):
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def body(self) -> dict[str, Any]:
        """The published form of an error."""
        detail = {"message": self.message, "domain": "global", "reason": self.reason}
        return {"error": {"code": self.status, "message": self.message, "errors": [detail]}}


def not_found(what: str) -> ApiError:
    return ApiError(404, "notFound", f"{what} does not exist.")


def invalid(message: str) -> ApiError:
    return ApiError(400, "invalid", message)


def base64_crc32c(value: int) -> str:
    return base64.b64encode(value.to_bytes(4, "big")).decode()


@dataclass
class Content:
    """Bytes on disk with their checksum; ``paths`` are read one after the other."""

    paths: list[Path]
    size: int = 0
    crc: int = 0

    @property
    def path(self) -> Path:
        assert len(self.paths) == 1
        return self.paths[0]

    def append(self, stream: Any, data: bytes) -> None:
        stream.write(data)
        self.size += len(data)
        self.crc = google_crc32c.extend(self.crc, data)

    def reread(self, start: int) -> None:
        """Bring size and checksum, which are those up to ``start``, up to the file again."""
        with self.path.open("rb") as stream:
            stream.seek(start)
            while data := stream.read(CHUNK):
                self.size += len(data)
                self.crc = google_crc32c.extend(self.crc, data)

    def md5(self) -> str | None:
        if self.size > MD5_LIMIT or len(self.paths) > 1:
            return None
        return base64.b64encode(hashlib.md5(self.path.read_bytes()).digest()).decode()

    def remove(self) -> None:
        for path in self.paths:
            path.unlink(missing_ok=True)


class OpenContent:
    """Open files of one content: a later overwrite does not disturb a download under way."""

    def __init__(self, content: Content):
        self._files = [path.open("rb") for path in content.paths]

    def __enter__(self) -> OpenContent:
        return self

    def __exit__(self, *_: Any) -> None:
        for file in self._files:
            file.close()

    def spans(self, start: int, length: int) -> Iterator[tuple[Any, int, int]]:
        """(file, offset, count) that together are ``length`` bytes from ``start`` on."""
        for file in self._files:
            size = os.fstat(file.fileno()).st_size
            count = min(size - start, length)
            if count > 0:
                yield file, start, count
                length -= count
            start = max(start - size, 0)

    def read(self, start: int, length: int) -> bytes:
        return b"".join(os.pread(file.fileno(), count, at) for file, at, count in self.spans(start, length))


@dataclass
class Object:
    """One live object."""

    bucket: str
    name: str
    generation: int
    content: Content
    metadata: dict[str, Any]
    md5: str | None
    created: str
    metageneration: int = 1
    components: int | None = None

    def resource(self, base: str) -> dict[str, Any]:
        """The object resource as published: 64-bit numbers are text."""
        quoted = self.name.replace("/", "%2F")
        here = f"storage/v1/b/{self.bucket}/o/{quoted}"
        body = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "selfLink": f"{base}/{here}",
            "mediaLink": f"{base}/download/{here}?generation={self.generation}&alt=media",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "size": str(self.content.size),
            "crc32c": base64_crc32c(self.content.crc),
            "etag": f"CO{self.generation}E=",
            "storageClass": "STANDARD",
            "timeCreated": self.created,
            "updated": self.created,
            "contentType": self.metadata.get("contentType") or "application/octet-stream",
        }
        if self.md5:
            body["md5Hash"] = self.md5
        if self.components:
            body["componentCount"] = self.components
        for key in ("metadata", "contentEncoding", "cacheControl"):
            if self.metadata.get(key):
                body[key] = self.metadata[key]
        return body


@dataclass
class Session:
    """A resumable upload under way, or finished (``result``): a repeated last chunk gets its answer again."""

    bucket: str
    name: str
    metadata: dict[str, Any]
    conditions: dict[str, str]
    content: Content
    result: Object | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Buckets:
    """The state of the server; every method is one atomic step."""

    def __init__(self, root: Path):
        self.root = root
        self.sessions: dict[str, Session] = {}
        self._buckets: dict[str, dict[str, Object]] = {}
        self._lock = threading.RLock()
        self._generations = itertools.count(time.time_ns() // 1000)

    def create_bucket(self, name: str) -> None:
        with self._lock:
            self._buckets.setdefault(name, {})

    def drop_bucket(self, name: str) -> None:
        with self._lock:
            for thing in self._buckets.pop(name, {}).values():
                thing.content.remove()

    def names(self) -> list[str]:
        return sorted(self._buckets)

    def bucket(self, name: str) -> dict[str, Object]:
        if name not in self._buckets:
            raise not_found("The specified bucket")
        return self._buckets[name]

    def new_content(self) -> Content:
        path = self.root / uuid.uuid4().hex
        path.touch()
        return Content([path])

    def get(self, bucket: str, name: str, conditions: dict[str, str]) -> Object:
        with self._lock:
            thing = self.bucket(bucket).get(name)
            wanted = conditions.get("generation")
            if thing is None or (wanted is not None and wanted != str(thing.generation)):
                raise not_found(f"No such object: {bucket}/{name}: the object")
            self.check(thing, conditions, reading=True)
            return thing

    def check(self, thing: Object | None, conditions: dict[str, str], *, reading: bool = False) -> None:
        """Raise 412, or 304 for a read with a ``NotMatch``, where a precondition does not hold."""
        generation = thing.generation if thing else 0
        metageneration = thing.metageneration if thing else None
        for key, value, wanted in (
            ("ifGenerationMatch", generation, True),
            ("ifGenerationNotMatch", generation, False),
            ("ifMetagenerationMatch", metageneration, True),
            ("ifMetagenerationNotMatch", metageneration, False),
        ):
            if key not in conditions:
                continue
            if not conditions[key].lstrip("-").isdigit():
                raise invalid(f"Invalid value for {key}: {conditions[key]}")
            if (str(value) == conditions[key]) is not wanted:
                if reading and not wanted:
                    raise ApiError(304, "notModified", "Not Modified")
                message = "At least one of the pre-conditions you specified did not hold."
                raise ApiError(412, "conditionNotMet", message)

    def put(
        self,
        bucket: str,
        name: str,
        content: Content,
        metadata: dict[str, Any],
        conditions: dict[str, str],
        *,
        components: int | None = None,
    ) -> Object:
        """Make ``content`` the object's live version, if checksums and preconditions hold."""
        md5 = content.md5() if components is None else None
        for label, claimed, found in (
            ("crc32c", metadata.get("crc32c"), base64_crc32c(content.crc)),
            ("MD5", metadata.get("md5Hash"), md5),
        ):
            if claimed and found and claimed != found:
                content.remove()
                message = (
                    f'Provided {label} hash "{claimed}" doesn\'t match calculated {label} hash "{found}".'
                )
                raise invalid(message)
        with self._lock:
            objects = self.bucket(bucket)
            old = objects.get(name)
            try:
                self.check(old, conditions)
            except ApiError:
                content.remove()
                raise
            created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            thing = Object(
                bucket, name, next(self._generations), content, metadata, md5, created, components=components
            )
            objects[name] = thing
            if old is not None:
                old.content.remove()
            return thing

    def patch(self, bucket: str, name: str, changes: dict[str, Any], conditions: dict[str, str]) -> Object:
        with self._lock:
            thing = self.get(bucket, name, {k: v for k, v in conditions.items() if k == "generation"})
            self.check(thing, conditions)
            thing.metadata = {**thing.metadata, **changes}
            thing.metageneration += 1
            return thing

    def delete(self, bucket: str, name: str, conditions: dict[str, str]) -> None:
        with self._lock:
            thing = self.bucket(bucket).get(name)
            wanted = conditions.get("generation")
            if thing is None or (wanted is not None and wanted != str(thing.generation)):
                raise not_found(f"No such object: {bucket}/{name}: the object")
            self.check(thing, conditions)
            del self._buckets[bucket][name]
            thing.content.remove()

    def compose(self, bucket: str, name: str, request: dict[str, Any], conditions: dict[str, str]) -> Object:
        """Concatenate up to 32 objects of one bucket; the crc32c of the whole is known, the MD5 is not."""
        sources = request.get("sourceObjects") or []
        if not 1 <= len(sources) <= 32:
            raise invalid(f"The number of source components provided ({len(sources)}) exceeds 32 or is 0.")
        content, components = Content([]), 0
        with self._lock:
            for source in sources:
                wanted = dict(source.get("objectPreconditions") or {})
                if source.get("generation") is not None:
                    wanted["generation"] = source["generation"]
                part = self.get(bucket, source["name"], {key: str(value) for key, value in wanted.items()})
                components += part.components or 1
                for path in part.content.paths:
                    link = self.root / uuid.uuid4().hex
                    os.link(path, link)
                    content.paths.append(link)
                content.crc = crc32c_combine(content.crc, part.content.crc, part.content.size)
                content.size += part.content.size
        metadata = request.get("destination") or {}
        return self.put(bucket, name, content, metadata, conditions, components=components)

    def open(self, bucket: str, name: str, conditions: dict[str, str]) -> tuple[Object, OpenContent]:
        with self._lock:
            thing = self.get(bucket, name, conditions)
            return thing, OpenContent(thing.content)

    def list(self, bucket: str, query: dict[str, str]) -> tuple[list[Object], list[str], str | None]:
        """One page: objects, common prefixes, and the token of the next page."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        start, end = query.get("startOffset", ""), query.get("endOffset")
        after = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
        limit = int(query.get("maxResults", 1000))
        with self._lock:
            everything = sorted(self.bucket(bucket).items())
        objects: list[Object] = []
        prefixes: list[str] = []
        last = after
        for name, thing in everything:
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            rest = name[len(prefix) :]
            entry = prefix + rest.split(delimiter)[0] + delimiter if delimiter and delimiter in rest else name
            if entry <= after or (prefixes and prefixes[-1] == entry):
                continue
            if len(objects) + len(prefixes) == limit:
                return objects, prefixes, base64.urlsafe_b64encode(last.encode()).decode()
            last = entry
            if entry == name:
                objects.append(thing)
            else:
                prefixes.append(entry)
        return objects, prefixes, None
