"""Signed requests to S3 and S3-compatible stores (MinIO, SeaweedFS: KFP's own), over ``requests``.

Where the store is and who asks comes from the environment: ``LATENTREC_S3_ENDPOINT`` (else
``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, else Amazon's), ``LATENTREC_S3_ACCESS_KEY`` and
``LATENTREC_S3_SECRET_KEY`` (else ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``),
``AWS_REGION``. Without keys requests are not signed, which public buckets answer.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import requests
import urllib3

from latentrec.core import UserError
from latentrec.core.retry import PASSING, Retries
from latentrec.core.settings import S3_ACCESS_KEY_VARIABLE, S3_ENDPOINT_VARIABLE, S3_SECRET_KEY_VARIABLE
from latentrec.storage.http_guard import Overrun, raw_blocks
from latentrec.storage.transfer import Timeouts
from latentrec.storage.types import PreconditionFailed, StorageError

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_REFUSED = (401, 403)
_BLOCK = 1 << 18
MAX_DOCUMENT = 8 << 20
"""Bytes of a page of names or of an error; a page of 1,000 names has at most about 2 MB."""


@dataclass(frozen=True)
class S3Settings:
    """Where the store is and who asks.

    Attributes:
        endpoint: ``scheme://host:port``; requests name the bucket in the path.
        access_key: empty for unsigned requests.
        secret_key: of the access key.
        session_token: of temporary keys; empty for none.
        region: enters the signature.
    """

    endpoint: str
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    region: str = "us-east-1"

    @classmethod
    def from_environment(cls) -> S3Settings:
        """Read the environment."""

        def first(*names: str) -> str:
            return next((os.environ[name] for name in names if os.environ.get(name)), "")

        region = first("AWS_REGION", "AWS_DEFAULT_REGION") or cls.region
        endpoint = first(S3_ENDPOINT_VARIABLE, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        ours = bool(os.environ.get(S3_ACCESS_KEY_VARIABLE))
        return cls(
            endpoint=(endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/"),
            access_key=first(S3_ACCESS_KEY_VARIABLE, "AWS_ACCESS_KEY_ID"),
            secret_key=first(S3_SECRET_KEY_VARIABLE, "AWS_SECRET_ACCESS_KEY"),
            session_token="" if ours else first("AWS_SESSION_TOKEN"),
            region=region,
        )


@dataclass(frozen=True)
class Answer:
    """What the store said, its body read whole and undecoded (never inflated)."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class S3Client:
    """Requests to one endpoint, with retries; safe for use by several threads."""

    def __init__(self, settings: S3Settings, timeouts: Timeouts) -> None:
        self.settings, self._timeouts = settings, timeouts
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.auth = _leave_as_signed

    def request(
        self,
        method: str,
        bucket: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = b"",
        sha256: str = EMPTY_SHA256,
        missing_ok: bool = False,
        limit: int = MAX_DOCUMENT,
    ) -> Answer:
        """One request, repeated while the failure may pass.

        Args:
            method: HTTP method.
            bucket: name of the bucket.
            key: of the object; empty for the bucket.
            query: parameters.
            headers: further headers.
            body: bytes, or a function that opens a stream (for the retries).
            sha256: hex digest of the body; the store compares it.
            missing_ok: return an answer of 404 instead of raising.
            limit: bytes of the answer's body at most.

        Raises:
            FileNotFoundError: HTTP 404.
            PreconditionFailed: HTTP 412, or 409 from two conditional writes at once.
            UserError: HTTP 401 or 403.
            StorageError: the failure did not pass in time, or the answer is longer than ``limit``.
        """
        path = f"/{quote(bucket, safe='')}" + (f"/{quote(key, safe='/~')}" if key else "")
        text = "&".join(
            f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in sorted((query or {}).items())
        )
        url = f"{self.settings.endpoint}{path}" + (f"?{text}" if text else "")
        where = f"s3://{bucket}/{key} at {self.settings.endpoint}"
        retries = Retries(seconds=self._timeouts.retry, longest_pause=10.0)
        while True:
            problem: str
            asked: float | None = None
            data = body() if callable(body) else body
            try:
                signed = sign(self.settings, method, path, text, headers or {}, sha256, datetime.now(UTC))
                # A redirect would be signed for another host: the store's own address is asked for.
                with self._session.request(
                    method,
                    url,
                    headers=signed,
                    data=data,
                    timeout=self._timeouts.timeout,
                    stream=True,
                    allow_redirects=False,
                ) as response:
                    answer = _read(response, limit, is_head=method == "HEAD")
                if answer.status_code < 300 or (missing_ok and answer.status_code == 404):
                    return answer
                problem = f"HTTP {answer.status_code} {error_code(answer)}".rstrip()
                asked = retries.asked_pause(answer.headers.get("Retry-After"))
                if answer.status_code not in PASSING:
                    _raise(answer.status_code, where, problem)
            except Overrun as error:
                raise StorageError(
                    f"{where}: {error}; check the endpoint", code="storage.bad_answer"
                ) from None
            except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError) as error:
                problem = type(error).__name__
            finally:
                if hasattr(data, "close"):
                    data.close()
            if not retries.wait(asked):
                raise StorageError(
                    f"{where}: no success within {self._timeouts.retry:.0f} s ({problem})",
                    code="storage.no_answer",
                )


def sign(
    settings: S3Settings,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    sha256: str,
    now: datetime,
) -> dict[str, str]:
    """Headers of a request with its AWS Signature Version 4.

    Args:
        settings: where and who.
        method: HTTP method.
        path: percent-encoded path.
        query: percent-encoded query, sorted by name.
        headers: of the request.
        sha256: hex digest of the body.
        now: time of the request, UTC.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    found = {"host": urlsplit(settings.endpoint).netloc, "x-amz-content-sha256": sha256, "x-amz-date": stamp}
    if settings.session_token:
        found["x-amz-security-token"] = settings.session_token
    found |= {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    if not settings.access_key:
        return found
    names = ";".join(sorted(found))
    canonical = "".join(f"{name}:{found[name]}\n" for name in sorted(found))
    request = "\n".join([method, path, query, canonical, names, sha256])
    scope = f"{stamp[:8]}/{settings.region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{settings.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    found["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={settings.access_key}/{scope},"
        f"SignedHeaders={names},Signature={signature}"
    )
    return found


def error_code(answer: Answer) -> str:
    """The code that the store gives with an error, such as ``NoSuchBucket``; empty for none.

    The rest of the body is untrusted text and is not shown.
    """
    try:
        code = ElementTree.fromstring(answer.content).findtext("Code") or ""
    except ElementTree.ParseError:
        return ""
    return code if re.fullmatch(r"[A-Za-z0-9.]{1,60}", code) else ""


def _read(response: requests.Response, limit: int, *, is_head: bool) -> Answer:
    if is_head:
        body = b""
    elif response.ok:
        body = b"".join(raw_blocks(response, limit, _BLOCK))
    else:  # the start of an error is enough
        body = response.raw.read(_BLOCK, decode_content=False)
    return Answer(response.status_code, response.headers, body)


def _leave_as_signed(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Without an ``auth``, requests would replace the signature by what a ``.netrc`` holds for the host."""
    return request


def _raise(status: int, where: str, problem: str) -> None:
    if status == 404:
        raise FileNotFoundError(f"{where} does not exist ({problem})")
    if status in (409, 412):
        raise PreconditionFailed(f"{where}: another writer was there first ({problem})")
    if status in _REFUSED:
        raise UserError(
            f"{where}: refused ({problem}); set LATENTREC_S3_ACCESS_KEY and LATENTREC_S3_SECRET_KEY, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to keys that may use it",
            code="storage.access_denied",
        )
    raise StorageError(f"{where}: {problem}", code="storage.bad_answer")
