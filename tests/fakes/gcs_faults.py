"""Faults that the fake Google Cloud Storage can be told to commit."""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass, fields
from typing import Any

KINDS = {
    "status": "answer with `status` instead of doing anything",
    "reset": "close the connection with a reset before doing anything",
    "lost_answer": "do what was asked, then reset the connection instead of answering",
    "reset_upload": "read `after_bytes` of the request's body, keep what the API would keep, then reset",
    "reset_download": "send `after_bytes` of the body, then reset the connection",
    "truncate": "promise the whole body, send `after_bytes` of it, close in good order",
    "short": "promise and send only `after_bytes` of the body, as if that were all",
    "corrupt_download": "flip one bit of the body on its way out",
    "corrupt_upload": "flip one bit of the request's body before it is stored",
    "slow": "wait `seconds` before answering",
    "hang": "accept the request and never answer (until the server stops)",
}


@dataclass
class Fault:
    """One rule: requests whose method and path match suffer it, ``times`` times (-1 for ever).

    Attributes:
        kind: one of :data:`KINDS`.
        method: HTTP method, or ``""`` for any.
        path: regular expression searched in path and query.
        times: how many requests suffer it.
        skip: how many matching requests go by unharmed first.
        status: for ``status``.
        after_bytes: where in the body it happens.
        seconds: for ``slow``.
    """

    kind: str
    method: str = ""
    path: str = ""
    times: int = 1
    skip: int = 0
    status: int = 503
    after_bytes: int = 1000
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; allowed: {', '.join(KINDS)}")

    def matches(self, method: str, target: str) -> bool:
        return self.method in ("", method) and re.search(self.path, target) is not None


class FaultPlan:
    """The faults still to come; the first rule that matches a request is spent on it."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, method: str, target: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times == 0 or not fault.matches(method, target):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= fault.times > 0
                return fault
        return None

    def pending(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(fault) for fault in self._faults if fault.times != 0]


def fault_from_json(body: dict[str, Any]) -> Fault:
    known = {field.name for field in fields(Fault)}
    unknown = set(body) - known
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}; known: {', '.join(sorted(known))}")
    return Fault(**body)
