"""A client of OpenAI-compatible chat endpoints: rate-limited, retrying, counting what it costs.

Only the standard library is used. The key comes from an environment variable and is never logged.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.core.text import printable

MAX_ANSWER_BYTES = 8 << 20
_CODE = re.compile(r"[a-z][a-z_]{1,40}")
RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The standard handler would take the key along to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the redirect comes back as an HTTP error."""
        return


_OPENER = urllib.request.build_opener(_NoRedirect)


class EndpointError(RuntimeError):
    """The endpoint did not answer usably within the attempts allowed."""


@dataclass(frozen=True)
class ChatAnswer:
    """One paid answer: its text and the tokens that the endpoint says were read and written."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    model: str


@dataclass
class Usage:
    """What was asked and paid; ``retries`` by reason."""

    requests: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: dict[str, int] = field(default_factory=dict)

    def cost(self, input_price: float, output_price: float) -> float:
        """In the currency of the prices, which are for a million tokens."""
        return (self.prompt_tokens * input_price + self.completion_tokens * output_price) / 1e6


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
        """Let nobody go before ``seconds`` from now: the endpoint asked for a pause."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class ChatEndpoint:
    """``POST <url>/chat/completions``.

    Args:
        url: base, ending in ``/v1`` as a rule.
        model: name that the endpoint knows.
        key_variable: environment variable with the key; one that is not set sends none.
        timeout: seconds for one request.
        attempts: requests made for one answer before giving up.
        rate: shared limit.
        backoff: seconds before the first retry; doubled each time, with jitter, at most a minute.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 60.0,
        attempts: int = 6,
        rate: RateLimit | None = None,
        backoff: float = 1.0,
        seed: int = 0,
    ):
        if not url.startswith(("http://", "https://")):
            raise UserError(
                f"endpoint is {url!r}; give the base URL of an OpenAI-compatible service, or 'template'"
            )
        self._url = url.rstrip("/") + "/chat/completions"
        self._model, self._key = model, os.environ.get(key_variable)
        self._timeout, self._attempts, self._backoff = timeout, attempts, backoff
        self._rate = rate or RateLimit(0)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.usage = Usage()

    def ask(self, prompt: str, *, key: str, temperature: float, max_tokens: int) -> ChatAnswer:
        """One answer to one user message.

        ``key`` is sent as ``Idempotency-Key``: an endpoint that knows it charges a repeated request once.

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
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        reason = ""
        for attempt in range(self._attempts):
            self._rate.wait()
            pause = min(60.0, self._backoff * 2**attempt) * (0.5 + self._random.random())
            try:
                self._count(requests=1)
                answer = _read_answer(self._post(body, headers), self._model)
                self._count(
                    answers=1,
                    prompt_tokens=answer.prompt_tokens,
                    completion_tokens=answer.completion_tokens,
                )
                return answer
            except urllib.error.HTTPError as error:
                if 300 <= error.code < 400:
                    raise UserError(
                        f"{self._url}: redirects (HTTP {error.code}); give the endpoint's final address, the "
                        "key is sent nowhere else"
                    ) from None
                if error.code not in RETRIED:
                    raise UserError(
                        f"{self._url}: HTTP {error.code} {http.client.responses.get(error.code, '')}"
                        f"{_error_code(error)}; check address, model and key"
                    ) from None
                reason = f"HTTP {error.code}"
                asked = _retry_after(error.headers.get("Retry-After"))
                if asked is not None:
                    pause = asked
                    self._rate.hold(asked)
            except TimeoutError:
                reason = "timeout"
            except _Malformed as error:
                reason = f"malformed answer ({error})"
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
                reason = (
                    "timeout" if isinstance(getattr(error, "reason", None), TimeoutError) else "no connection"
                )
            self._count_retry(reason)
            if attempt + 1 < self._attempts:
                time.sleep(pause)
        raise EndpointError(f"{redact(self._url)}: {self._attempts} attempts failed, the last with {reason}")

    def _post(self, body: bytes, headers: dict[str, str]) -> bytes:
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
        with _OPENER.open(request, timeout=self._timeout) as response:
            answer = response.read(MAX_ANSWER_BYTES + 1)
        if len(answer) > MAX_ANSWER_BYTES:
            raise _Malformed("longer than any answer")
        return answer

    def _count(self, **amounts: int) -> None:
        with self._lock:
            for name, amount in amounts.items():
                setattr(self.usage, name, getattr(self.usage, name) + amount)

    def _count_retry(self, reason: str) -> None:
        kind = reason.split(" (")[0]
        with self._lock:
            self.usage.retries[kind] = self.usage.retries.get(kind, 0) + 1


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
    """Tokens as the endpoint tells them; what is negative must not lower the spend."""
    return max(0, int(value or 0))


def _error_code(error: urllib.error.HTTPError) -> str:
    """The error's short code, if the body has one; the body itself may echo the key and is not shown."""
    try:
        record = json.loads(error.read(1 << 16))["error"]
        code = record.get("code") or record.get("type")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
        return ""
    return f" ({code})" if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _retry_after(value: str | None) -> float | None:
    try:
        return min(300.0, max(0.0, float(value))) if value is not None else None
    except ValueError:
        return None
