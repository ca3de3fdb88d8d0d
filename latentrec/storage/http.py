"""Files on the web, for reading: resumed by ranges, retried within bounds, length verified."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar, cast
from urllib.parse import urlsplit

import requests
import urllib3

from latentrec import __version__
from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.core.retry import PASSING, Retries
from latentrec.core.text import printable
from latentrec.storage.http_guard import (
    MAX_UNANNOUNCED,
    Overrun,
    announced_size,
    guarded_get,
    ranged_size,
    raw_blocks,
)
from latentrec.storage.transfer import PIECE, RangeReader, Timeouts, transfer_progress
from latentrec.storage.types import MAX_SMALL, ObjectInfo, StorageError, too_large

_BLOCK = 1 << 18
_FIRST_S = 10.0
"""How long a host is tried that has never answered."""
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"latentrec/{__version__}"}
T = TypeVar("T")


class HttpStore:
    """``https://`` and ``http://`` locations; every write raises :class:`UserError`."""

    def __init__(self, timeouts: Timeouts | None = None):
        self._timeouts = timeouts or Timeouts.from_environment()
        self._answered: set[str] = set()  # hosts
        self._session = requests.Session()
        self._session.headers.update(_HEADERS)

    def stat(self, uri: str) -> ObjectInfo | None:
        """Describe one file, or ``None`` where there is none; ``size`` is −1 when the server does not say."""
        described = self._describe(uri)
        return None if described is None else described[0]

    def open_read(self, uri: str) -> BinaryIO:
        """Open for sequential reading: by ranges where the server knows them, else from a temporary copy."""
        info, ranges = self._must_exist(uri)
        if ranges and info.size >= 0:
            fetch = lambda start, end: self._fetch(info, start, end)  # noqa: E731
            return cast(BinaryIO, io.BufferedReader(RangeReader(uri, info.size, fetch), PIECE // 8))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "copy"
            self.download_file(uri, path)
            return path.open("rb")

    def read_bytes(self, uri: str) -> bytes:
        """Read a small file whole.

        Raises:
            StorageError: it is larger than what is read into memory.
        """
        with self.open_read(uri) as stream:
            data = stream.read(MAX_SMALL + 1)
        if len(data) > MAX_SMALL:
            raise too_large(redact(uri))
        return data

    def download_file(self, uri: str, path: Path) -> None:
        """Copy ``uri`` to a local file; what an interrupted call got is kept and gone on from.

        The bytes so far lie in ``.<name>.part``; they are used again only when the server still holds the
        same version, and ``path`` appears only when its length is the one promised.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        info, ranges = self._must_exist(uri)
        part = path.with_name(f".{path.name}.part")
        note = path.with_name(f".{path.name}.part.json")
        if not ranges or _read_note(note) != [_marked(uri), info.version, info.size]:
            part.unlink(missing_ok=True)
        note.write_text(json.dumps([_marked(uri), info.version, info.size]))
        reached = part.stat().st_size if part.exists() else 0

        def go_on(progressed: Callable[[], None]) -> None:
            nonlocal reached

            def came_to(position: int) -> None:
                nonlocal reached  # a server that starts over again and again makes no progress
                if position > reached:
                    reached = position
                    progressed()

            self._continue(info, part, moved, came_to)

        with transfer_progress(f"download {redact(uri)}", info.size) as moved:
            moved(reached)
            try:
                self._retried(uri, go_on)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise StorageError(
                        f"{path}: no space left for {redact(uri)}; free some", code="storage.disk_full"
                    ) from None
                raise
        os.replace(part, path)
        note.unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Only the one file: the web cannot be listed."""
        info = self.stat(prefix)
        if info is None:
            raise UserError(
                f"{redact(prefix)}: https:// locations cannot be listed; name each file",
                code="storage.cannot_list",
            )
        yield info

    def leftovers(self, prefix: str) -> Iterator[ObjectInfo]:
        """Nothing: no upload goes here."""
        return iter(())

    def write_bytes(self, uri: str, data: bytes, *, if_version: str | None = None) -> ObjectInfo:
        """Raises :class:`UserError`: web locations can only be read."""
        _read_only(uri)

    def upload_file(self, path: Path, uri: str, *, if_version: str | None = None) -> ObjectInfo:
        """Raises :class:`UserError`: web locations can only be read."""
        _read_only(uri)

    def delete(self, uri: str, *, if_version: str | None = None) -> None:
        """Raises :class:`UserError`: web locations can only be read."""
        _read_only(uri)

    def deletion_rules(self, uri: str) -> Sequence[str] | None:
        """``None``: a web server does not say."""
        return None

    def _must_exist(self, uri: str) -> tuple[ObjectInfo, bool]:
        described = self._describe(uri)
        if described is None:
            raise FileNotFoundError(f"{redact(uri)} does not exist")
        return described

    def _describe(self, uri: str) -> tuple[ObjectInfo, bool] | None:
        """The file, and whether the server serves ranges of it."""

        def ask(_: Callable[[], None]) -> tuple[ObjectInfo, bool] | None:
            response = self._get(uri, {"Range": "bytes=0-0"})
            with response:
                if response.status_code in (404, 410):
                    return None
                headers = response.headers
                total = ranged_size(headers, uri)
                if response.status_code == 206 and total >= 0:
                    size, ranges = total, True
                elif response.status_code == 416:  # an empty file has no first byte
                    size, ranges = max(total, 0), False
                else:
                    _refuse_unless_success(uri, response)
                    size, ranges = announced_size(headers, uri), False
                version = headers.get("ETag") or headers.get("Last-Modified") or f"size-{size}"
                return ObjectInfo(uri=uri, size=size, version=version), ranges

        return self._retried(uri, ask)

    def _fetch(self, info: ObjectInfo, start: int, end: int) -> bytes:
        def ask(_: Callable[[], None]) -> bytes:
            with self._get(info.uri, _range_headers(info, start, end)) as response:
                _refuse_unless_success(info.uri, response)
                if response.status_code != 206:
                    raise StorageError(
                        f"{redact(info.uri)} changed while it was read; read it again",
                        code="storage.changed",
                    )
                data = b"".join(raw_blocks(response, end - start, _BLOCK))
            if len(data) != end - start:
                raise _TransientError(f"{len(data)} of {end - start} bytes came")
            return data

        return self._retried(info.uri, ask)

    def _continue(
        self, info: ObjectInfo, part: Path, moved: Callable[[int], None], came_to: Callable[[int], None]
    ) -> None:
        """Append what is missing to ``part``."""
        done = part.stat().st_size if part.exists() else 0
        if 0 <= info.size == done:
            part.touch()
            return
        with self._get(info.uri, _range_headers(info, done, None) if done else {}) as response:
            _refuse_unless_success(info.uri, response)
            if response.status_code != 206 and done:
                moved(-done)  # the server starts over
                done = 0
            with part.open("r+b" if done else "wb") as stream:
                stream.seek(done)
                limit = info.size - done if info.size >= 0 else MAX_UNANNOUNCED
                try:
                    for block in raw_blocks(response, limit, _BLOCK):
                        stream.write(block)
                        moved(len(block))
                        came_to(stream.tell())
                except Overrun as error:
                    part.unlink()
                    raise StorageError(
                        f"{redact(info.uri)}: {error}; check the address", code="storage.bad_answer"
                    ) from None
                done = stream.tell()
        if 0 <= info.size != done:
            raise _TransientError(f"{done:,} of {info.size:,} bytes came")

    def _get(self, uri: str, headers: dict[str, str]) -> requests.Response:
        response = guarded_get(self._session, uri, headers, self._timeouts.timeout)
        self._answered.add(urlsplit(uri).netloc)
        if response.status_code in PASSING:
            response.close()
            raise _TransientError(f"HTTP {response.status_code}", response.headers.get("Retry-After"))
        return response

    def _retried(self, uri: str, action: Callable[[Callable[[], None]], T]) -> T:
        """Repeat ``action`` on passing faults until ``timeouts.retry`` seconds went by without progress.

        A host that has never answered is given up much earlier: we are offline, or the name is wrong.
        """
        retries = Retries(seconds=self._timeouts.retry)
        while True:
            try:
                return action(retries.progressed)
            except (
                requests.exceptions.InvalidURL,
                requests.exceptions.MissingSchema,
                requests.exceptions.InvalidSchema,
                UnicodeError,
            ) as error:
                raise UserError(
                    f"{redact(uri)}: not an address ({redact(str(error))})", code="storage.bad_uri"
                ) from None
            except (
                _TransientError,
                requests.RequestException,
                urllib3.exceptions.HTTPError,
                ConnectionError,
            ) as error:
                within = None if urlsplit(uri).netloc in self._answered else _FIRST_S
                asked = retries.asked_pause(getattr(error, "retry_after", None))
                if not retries.wait(asked, within=within):
                    raise StorageError(
                        f"{redact(uri)}: no success for {retries.bound(within):.3g} s ({_reason(error)}); "
                        "check the network or try again later (a download goes on where it stopped)",
                        code="storage.no_answer",
                    ) from None


class _TransientError(Exception):
    """A fault that may pass."""

    def __init__(self, message: str, retry_after: str | None = None):
        super().__init__(message)
        self.retry_after = retry_after


def _range_headers(info: ObjectInfo, start: int, end: int | None) -> dict[str, str]:
    headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
    if not info.version.startswith(("W/", "size-")):
        headers["If-Range"] = info.version
    return headers


def _refuse_unless_success(uri: str, response: requests.Response) -> None:
    if response.status_code in (401, 403):
        raise UserError(
            f"{redact(uri)}: HTTP {response.status_code}, access denied; download it by hand and give the "
            "path",
            code="storage.access_denied",
        )
    if response.status_code in (404, 410):
        raise FileNotFoundError(f"{redact(uri)} does not exist")
    if not response.ok:
        raise StorageError(
            f"{redact(uri)}: HTTP {response.status_code} {printable(response.reason or '')[:80]}",
            code="storage.bad_answer",
        )


def _marked(uri: str) -> str:
    """The location as the note of a download holds it: comparable, and without a secret."""
    return f"{redact(uri)} {hashlib.sha256(uri.encode()).hexdigest()[:16]}"


def _read_note(note: Path) -> Any:
    try:
        return json.loads(note.read_text())
    except (OSError, ValueError):
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer"
    if isinstance(error, requests.exceptions.ConnectionError | urllib3.exceptions.HTTPError):
        return "no connection"
    return redact(str(error).splitlines()[0])[:200] if str(error) else type(error).__name__


def _read_only(uri: str) -> NoReturn:
    raise UserError(
        f"{redact(uri)}: https:// locations can only be read; write to a path or gs://",
        code="storage.read_only",
    )
