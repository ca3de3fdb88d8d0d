"""Which failures are transient, and how a worker reports its failure to its supervisor."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from latentrec.core import Interrupted, UserError
from latentrec.core.settings import WORKER_REPORT_VARIABLE

_TRANSIENT = frozenset(
    {
        "StorageError",  # ours: an object store that did not do what was asked, within its own retries
        "ConnectionError",
        "TimeoutError",
        "HTTPError",  # urllib3's and requests'
        "RetryError",  # google.api_core
        "ServerError",
        "TooManyRequests",
        "DistError",  # torch.distributed: NCCL, the rendezvous store, the network between ranks
        "DistNetworkError",
        "DistStoreError",
        "DistBackendError",
    }
)
"""Names of exception classes, or of their bases, that the surroundings raise; held by name so that nothing is
imported for them."""

_TRANSIENT_TEXTS = (
    "NCCL error",
    "NCCL communicator",
    "unspecified launch failure",
    "Connection reset by peer",
)


@dataclass(frozen=True)
class Failure:
    """How a worker failed.

    Attributes:
        exit_code: that it leaves with.
        transient: whether a new attempt may succeed.
        error: the error in one line.
    """

    exit_code: int
    transient: bool
    error: str


def is_transient(error: BaseException) -> bool:
    """Whether a failure comes from the surroundings and may pass: object store, tracking server, NCCL.

    A user's error, an interruption, and memory that a model does not fit into are none.
    """
    if isinstance(error, UserError | Interrupted | KeyboardInterrupt):
        return False
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if _TRANSIENT & {kind.__name__ for kind in type(cause).__mro__}:
            return True
        if isinstance(cause, RuntimeError) and any(text in str(cause) for text in _TRANSIENT_TEXTS):
            return True
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


def report_failure(error: BaseException, exit_code: int) -> None:
    """Report to the supervisor, where there is one; of several processes the first to fail counts."""
    path = os.environ.get(WORKER_REPORT_VARIABLE)
    if not path:
        return
    line = " ".join((str(error) or type(error).__name__).split())[:500]
    failure = Failure(exit_code, is_transient(error), f"{type(error).__name__}: {line}")
    with contextlib.suppress(FileExistsError), open(path, "x", encoding="utf-8") as stream:
        json.dump(asdict(failure), stream)


def read_report(path: Path) -> Failure | None:
    """What a worker has reported; ``None`` where it was killed before it could."""
    try:
        return Failure(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
