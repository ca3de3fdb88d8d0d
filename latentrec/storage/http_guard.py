"""What a web server may do to a reader: where it may send it, how much it may send, and in what form.

A body is read undecoded and never beyond the announced length, a redirect does not lead from the web into a
private network or to another scheme, and header values are validated before they are used.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

import requests

from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.storage.types import StorageError

MAX_SIZE = 1 << 43
"""Bytes of the largest file that is accepted (8 TB)."""
MAX_UNANNOUNCED = 64 << 30
"""Bytes taken from a server that does not say how many there are."""
_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}


def guarded_get(
    session: requests.Session, uri: str, headers: dict[str, str], timeout: tuple[float, float]
) -> requests.Response:
    """GET ``uri``, its body not yet read; follows redirects that stay within bounds.

    Raises:
        UserError: it redirects too often, to another scheme, from https to http, or to another host on a
            private network.
        requests.RequestException: no connection, no answer.
    """
    target = uri
    for _ in range(_MAX_REDIRECTS + 1):
        response = session.get(target, headers=headers, stream=True, timeout=timeout, allow_redirects=False)
        if response.status_code not in _REDIRECTS or "location" not in response.headers:
            return response
        location = response.headers["location"]
        response.close()
        following = urljoin(target, location)
        _check_redirect(uri, target, following)
        target = following
    raise UserError(
        f"{redact(uri)}: more than {_MAX_REDIRECTS} redirects; give the final address",
        code="storage.refused_redirect",
    )


def raw_blocks(response: requests.Response, limit: int, block: int) -> Iterator[bytes]:
    """The body undecoded (never inflated), at most ``limit`` bytes of it.

    Raises:
        Overrun: the server sends more.
    """
    taken = 0
    for data in response.raw.stream(block, decode_content=False):
        taken += len(data)
        if taken > limit:
            raise Overrun(
                f"the server sends more than the {limit:,} bytes expected", code="storage.bad_answer"
            )
        yield data


class Overrun(StorageError):
    """A response body is longer than its announced length or the requested range."""


def announced_size(headers: requests.structures.CaseInsensitiveDict, uri: str) -> int:
    """``Content-Length``, or −1 where there is none that is a number.

    Raises:
        StorageError: larger than the largest file that is accepted.
    """
    return _checked_size(headers.get("Content-Length", ""), uri)


def ranged_size(headers: requests.structures.CaseInsensitiveDict, uri: str) -> int:
    """The whole size in ``Content-Range``, or −1 where there is none.

    Raises:
        StorageError: larger than the largest file that is accepted.
    """
    found = re.match(r"bytes (?:\d+-\d+|\*)/(\d+)\s*$", headers.get("Content-Range", ""))
    return _checked_size(found[1], uri) if found else -1


def _checked_size(digits: str, uri: str) -> int:
    digits = digits.strip()
    if not digits.isdecimal() or not digits.isascii():
        return -1
    if len(digits) > 15 or int(digits) > MAX_SIZE:
        raise StorageError(
            f"{redact(uri)}: the server says that it has {digits[:25]} bytes, which no file has; check the "
            "address",
            code="storage.bad_answer",
        )
    return int(digits)


def _check_redirect(uri: str, source: str, target: str) -> None:
    before, after = urlsplit(source), urlsplit(target)
    shown = f"{redact(uri)}: redirects to {redact(target)[:200]!r}"
    if after.scheme not in ("http", "https"):
        raise UserError(
            f"{shown}, which is not a web address; give the file's own address",
            code="storage.refused_redirect",
        )
    if before.scheme == "https" and after.scheme == "http":
        raise UserError(
            f"{shown}, from https to http; give the file's own address", code="storage.refused_redirect"
        )
    if after.hostname != before.hostname and not _is_public(after.hostname or ""):
        raise UserError(
            f"{shown}, another host on a private network; give the file's own address",
            code="storage.refused_redirect",
        )


def _is_public(host: str) -> bool:
    """Whether every address of a host is reachable from everywhere (no private, loopback, link-local one)."""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        # No name server here (behind a proxy): a name is left to the proxy, a bare address is checked.
        try:
            return ipaddress.ip_address(host).is_global
        except ValueError:
            return "." in host and not host.endswith((".local", ".internal", ".localhost"))
    return all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_global for entry in found)
