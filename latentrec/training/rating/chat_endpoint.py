"""A client of OpenAI-compatible chat endpoints: rate-limited and retrying.

Over ``requests``, without the ``openai`` package, which is in no image. The key comes from an environment
variable and is never logged.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import requests
import urllib3

from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.core.retry import PASSING, Retries
from latentrec.core.text import printable
from latentrec.storage.http_guard import Overrun, raw_blocks

MAX_ANSWER_BYTES = 8 << 20
"""A longer body is refused: it is no chat answer, and would fill the memory."""
_CODE = re.compile(r"[a-z][a-z_]{1,40}")
RETRIED = PASSING | {409}
"""Status codes that are tried again; 409 says that the first attempt of a request still runs."""
_BLOCK = 1 << 16


class EndpointError(RuntimeError):
    """The endpoint did not answer usably within the attempts allowed.

    Attributes:
        fault: of the last attempt: ``timeout``, ``no connection``, ``malformed answer`` or ``HTTP 503``.
    """

    def __init__(self, message: str, fault: str):
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class ChatAnswer:
    """One paid answer: its text and the tokens that the endpoint says were read and written."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    model: str


class RateLimit:
    """Spaces requests evenly over time, across threads; 0 a minute means no limit."""

    def __init__(self, per_minute: float):
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until the next request may go out."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._interval
        if at > now:
            time.sleep(at - now)

    def hold(self, seconds: float) -> None:
        """Delay all requests by ``seconds`` from now: the endpoint asked for a pause."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class ChatEndpoint:
    """``POST <url>/chat/completions``.

    Args:
        url: base, ending in ``/v1`` as a rule.
        model: name at the endpoint.
        key_variable: environment variable with the key; one that is not set sends none.
        timeout: seconds for one request.
        attempts: requests made for one answer before giving up.
        rate: shared limit.
        backoff: seconds before the first retry; doubled each time, with jitter, at most a minute. What the
            endpoint asks for with ``Retry-After`` comes first, for at most five minutes.

    Attributes:
        retries: attempts that failed, by reason.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str,
        timeout: float,
        attempts: int,
        rate: RateLimit,
        backoff: float,
    ):
        if not url.startswith(("http://", "https://")):
            raise UserError(
                f"endpoint is {url!r}; give the base URL of an OpenAI-compatible service, or 'template'",
                code="config.bad_value",
            )
        self._url = url.rstrip("/") + "/chat/completions"
        self._model, self._key = model, os.environ.get(key_variable)
        self._timeout, self._attempts, self._backoff = timeout, attempts, backoff
        self._rate = rate
        self._threads = threading.local()
        self._lock = threading.Lock()
        self.retries: Counter[str] = Counter()

    def ask(self, prompt: str, *, key: str, temperature: float, max_tokens: int) -> ChatAnswer:
        """One answer to one user message.

        ``key`` is sent as ``Idempotency-Key``: an endpoint that supports it charges a repeated request once.

        Raises:
            UserError: the endpoint refuses the request itself (wrong key, model or URL).
            EndpointError: every attempt timed out, was turned away or came back malformed.
        """
        body = json.dumps(
            {
                "model": self._model,
                "messages": [{"role": "user", "content": prompt}],
                "temperature": temperature,
                "max_tokens": max_tokens,
            }
        ).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        retries = Retries(
            attempts=self._attempts, first_pause=self._backoff, longest_pause=60.0, longest_asked=300.0
        )
        while True:
            self._rate.wait()
            asked = None
            try:
                return _read_answer(self._post(body, headers), self._model)
            except _TurnedAway as error:
                reason = f"HTTP {error.status}"
                asked = retries.asked_pause(error.retry_after)
                if asked is not None:
                    self._rate.hold(asked)
            except _Malformed as error:
                reason = f"malformed answer ({error})"
            except (
                requests.exceptions.InvalidURL,
                requests.exceptions.MissingSchema,
                requests.exceptions.InvalidSchema,
                UnicodeError,
            ):
                raise UserError(
                    f"{redact(self._url)}: not an address; give the endpoint's base URL",
                    code="endpoint.refused",
                ) from None
            except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
                reason = "timeout"
            except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError):
                reason = "no connection"
            with self._lock:
                self.retries[_fault(reason)] += 1
            if not retries.wait(asked):
                raise EndpointError(
                    f"{redact(self._url)}: {self._attempts} attempts failed, the last with {reason}",
                    _fault(reason),
                )

    def _post(self, body: bytes, headers: dict[str, str]) -> bytes:
        # A redirect would take the key along to another host.
        with self._session().post(
            self._url, data=body, headers=headers, timeout=self._timeout, stream=True, allow_redirects=False
        ) as response:
            status = response.status_code
            if status in RETRIED:
                raise _TurnedAway(status, response.headers.get("Retry-After"))
            if 300 <= status < 400:
                raise UserError(
                    f"{redact(self._url)}: redirects (HTTP {status}); give the endpoint's final address, the "
                    "key is sent nowhere else",
                    code="endpoint.refused",
                )
            if not 200 <= status < 300:
                raise UserError(
                    f"{redact(self._url)}: HTTP {status} {http.client.responses.get(status, '')}"
                    f"{_error_code(response)}; check address, model and key",
                    code="endpoint.refused",
                )
            try:
                return b"".join(raw_blocks(response, MAX_ANSWER_BYTES, _BLOCK))
            except Overrun:
                raise _Malformed("longer than any answer") from None

    def _session(self) -> requests.Session:
        """One a thread: sessions are not promised to be safe for several."""
        if not hasattr(self._threads, "session"):
            session = requests.Session()
            session.headers["Accept-Encoding"] = "identity"
            session.auth = self._authorize
            self._threads.session = session
        return self._threads.session

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Set the key, or nothing: without an ``auth``, requests would send what a ``.netrc`` holds."""
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _fault(reason: str) -> str:
    """A reason without its details."""
    return reason.split(" (")[0]


class _TurnedAway(Exception):
    """An answer with a status that another try may change."""

    def __init__(self, status: int, retry_after: str | None):
        super().__init__(f"HTTP {status}")
        self.status, self.retry_after = status, retry_after


class _Malformed(ValueError):
    """An answer with status 200 that holds no message."""


def _read_answer(body: bytes, model: str) -> ChatAnswer:
    try:
        record: Any = json.loads(body)
        text = record["choices"][0]["message"]["content"]
        usage = record.get("usage") or {}
        if not isinstance(text, str) or not text.strip():
            raise _Malformed("no text")
        return ChatAnswer(
            text=text,
            prompt_tokens=_tokens(usage.get("prompt_tokens", 0)),
            completion_tokens=_tokens(usage.get("completion_tokens", 0)),
            model=printable(str(record.get("model") or model))[:200],
        )
    except _Malformed:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError):
        raise _Malformed("not a chat completion") from None


def _tokens(value: Any) -> int:
    """Tokens as the endpoint reports them; a negative number must not lower the cost."""
    return max(0, int(value or 0))


def _error_code(response: requests.Response) -> str:
    """The error's short code, if the body has one; the body itself may echo the key and is not shown."""
    try:
        record = json.loads(response.raw.read(_BLOCK, decode_content=False))["error"]
        code = record.get("code") or record.get("type")
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OSError,
        urllib3.exceptions.HTTPError,
    ):
        return ""
    return f" ({code})" if isinstance(code, str) and _CODE.fullmatch(code) else ""
