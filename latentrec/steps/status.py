"""How a step went: ``<run root>/status/<run id>/<step>.json``, which the run summary reads.

KFP's own final status does not say which step failed or why; each step writes it here. The run id and
the root come from the environment (``LATENTREC_RUN_ID``, ``LATENTREC_STATUS_ROOT``), never from a
parameter, which would defeat caching. Without them (a command run by hand) nothing is recorded.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from latentrec.core import EXIT_BAD_INPUT, EXIT_INTERRUPTED, Interrupted, UserError
from latentrec.core.documents import parse_document
from latentrec.core.log_setup import configure_logging
from latentrec.core.redact import redact, redact_values
from latentrec.core.settings import (
    RESTARTS_VARIABLE,
    RUN_ID_VARIABLE,
    STATUS_ROOT_VARIABLE,
    STEP_VARIABLE,
)
from latentrec.core.text import one_line, printable
from latentrec.steps.failures import report_failure
from latentrec.steps.local_run import end_with_run
from latentrec.storage.checkpoints import StaleAttempt
from latentrec.storage.types import StorageError
from latentrec.storage.uri import join, store_for

_logger = logging.getLogger(__name__)

EXIT_KEYBOARD = 130
EXIT_BROKEN_PIPE = 141
_FREE = "free space or choose another place"
_WRITABLE = "choose a place that can be written"
_MACHINE = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EROFS: _WRITABLE,
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""Faults of the machine, and what can be done about each."""

_STATUS = re.compile(r"[a-z][a-z0-9_]*\.json")
_LATEST = 1e12
"""Largest UTC seconds that are accepted, far beyond any; NaN and infinity are not below it."""
KFP_ATTEMPT_VARIABLE = "KFP_RETRY_INDEX"
"""KFP sets it: how many pods of this step there were before."""


@dataclass
class StepStatus:
    """State of one step: ``running``, ``succeeded``, ``failed``, ``bad_input`` or ``interrupted``.

    ``started`` and ``ended`` are UTC seconds; ``gpu_seconds`` is wall time times devices; ``error_code`` is
    that of a ``UserError`` or ``StorageError``; ``details`` holds what the summary shows (counts, a verdict,
    links).
    """

    step: str
    state: str = "running"
    started: float = 0.0
    ended: float | None = None
    gpu_seconds: float = 0.0
    error: str | None = None
    error_code: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@contextmanager
def step_status(step: str) -> Iterator[StepStatus]:
    """Record the step's beginning and end; yields the status so that ``details`` can be filled in."""
    end_with_run()
    status = StepStatus(step=step, started=time.time())
    began = time.monotonic()  # the machine's clock may be set back while the step runs
    _add_earlier_attempts(status)
    _write(status)
    try:
        yield status
    except BaseException as error:
        status.state = _state_of(error)
        status.error = str(error) or type(error).__name__
        status.error_code = error.code if isinstance(error, UserError | StorageError) else None
        raise
    else:
        status.state = "succeeded"
    finally:
        status.ended = status.started + (time.monotonic() - began)
        status.gpu_seconds = (status.ended - status.started) * _cuda_devices()
        _write(status)


@contextmanager
def _reported() -> Iterator[None]:
    """Report a failure to the supervisor of this process, where there is one."""
    try:
        yield
    except Exception as error:
        codes = {UserError: EXIT_BAD_INPUT, Interrupted: EXIT_INTERRUPTED}
        report_failure(error, next((code for kind, code in codes.items() if isinstance(error, kind)), 1))
        raise


@contextmanager
def exit_code_on_error() -> Iterator[None]:
    """Turn exceptions into exit codes: 2 bad input, 143 interrupted after saving, 130 Ctrl-C, 1 all others.

    What the user or the machine's operator can correct is one line without a traceback: a full disk, a folder
    that cannot be written, too little memory.
    """
    try:
        with _reported():
            configure_logging()
            yield
    except UserError as error:
        _leave("error", str(error), EXIT_BAD_INPUT, error.code)
    except Interrupted as error:
        _leave("interrupted", str(error), EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        _leave("interrupted", "Ctrl-C; nothing half-written stays behind", EXIT_KEYBOARD)
    except BrokenPipeError:  # the reader of our output (head, less) has gone: no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_BROKEN_PIPE) from None
    except StorageError as error:
        _leave("failed", str(error), 1, error.code)
    except StaleAttempt as error:
        _leave("failed", str(error), 1)
    except MemoryError:
        _leave("failed", "out of memory; give the step more, or make the work smaller", 1)
    except OSError as error:
        if error.errno not in _MACHINE:
            _crash(error)
        place = f"{error.filename}: " if error.filename else ""
        _leave("failed", f"{place}{error.strerror}; {_MACHINE[error.errno]}", 1)
    except Exception as error:
        _crash(error)


def _crash(error: Exception) -> NoReturn:
    """An unexpected fault: its traceback, for a report."""
    _logger.critical("%s: %s", type(error).__name__, error, exc_info=error)
    raise SystemExit(1) from None


def _leave(word: str, message: str, exit_code: int, error_code: str | None = None) -> NoReturn:
    level = logging.WARNING if word == "interrupted" else logging.ERROR
    shown = printable(redact(message), lines=True)
    _logger.log(level, "%s", shown, extra={"label": word, "error_code": error_code})
    raise SystemExit(exit_code) from None


def read_step_statuses(root: str, run_id: str) -> list[StepStatus]:
    """Every step's status of one run, in order of start; other files there are none of ours.

    Consoles make objects of no bytes that stand for a folder, and file managers hide files of their own.

    Raises:
        UserError: a file there is no status.
    """
    prefix = join(root, run_id) + "/"
    store = store_for(root)
    names = [name for info in store.list(prefix) if _STATUS.fullmatch(name := info.uri.removeprefix(prefix))]
    found = [_parse_status(store.read_bytes(prefix + name), prefix + name) for name in names]
    return sorted(found, key=lambda status: status.started)


def close_lost_status(error: str, *, replace: bool = False) -> None:
    """Say that this process's step failed, where its worker was lost and could not say so itself.

    Args:
        error: why.
        replace: also where the worker said something: of several nodes one is lost, and the others
            report only that they lost the connection.
    """
    root, run_id = os.environ.get(STATUS_ROOT_VARIABLE), os.environ.get(RUN_ID_VARIABLE)
    step = os.environ.get(STEP_VARIABLE)
    if not (root and run_id and step):
        return
    uri = join(root, run_id, f"{step}.json")
    try:
        status = _parse_status(store_for(uri).read_bytes(uri), uri)
    except FileNotFoundError:
        status = StepStatus(step=step, started=time.time())
    if status.state == "running" or (replace and status.state == "failed"):
        status.state, status.error, status.ended = "failed", error, time.time()
        _write(status)


def _add_earlier_attempts(status: StepStatus) -> None:
    """Restarts of the worker within this pod, and pods before this one."""
    reported = json.loads(os.environ.get(RESTARTS_VARIABLE) or "{}")
    status.started = reported.get("began", status.started)
    if reported.get("restarts"):
        status.details["restarts"] = [entry["reason"] for entry in reported["restarts"]]
    pods = os.environ.get(KFP_ATTEMPT_VARIABLE, "")
    if pods.isdecimal() and int(pods) > 0:
        status.details["earlier_pods"] = int(pods)


def _parse_status(data: bytes, uri: str) -> StepStatus:
    try:
        status = StepStatus(**parse_document(data))
        numbers = (status.started, status.ended or 0.0, status.gpu_seconds)
        if (
            isinstance(status.step, str)
            and isinstance(status.state, str)
            and isinstance(status.details, dict)
            and all(isinstance(number, int | float) and abs(number) < _LATEST for number in numbers)
        ):
            return status
        reason = "a field is of another type"
    except (ValueError, TypeError) as error:
        reason = one_line(error)
    raise UserError(
        f"{uri}: not the status of a step ({reason}); remove it or choose another --run",
        code="run.bad_status",
    )


def _write(status: StepStatus) -> None:
    root, run_id = os.environ.get(STATUS_ROOT_VARIABLE), os.environ.get(RUN_ID_VARIABLE)
    if root and run_id:
        uri = join(root, run_id, f"{status.step}.json")
        body = redact_values(asdict(status))
        store_for(uri).write_bytes(uri, json.dumps(body, sort_keys=True).encode())


def _state_of(error: BaseException) -> str:
    if isinstance(error, UserError):
        return "bad_input"
    return "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"


def _cuda_devices() -> int:
    torch = sys.modules.get("torch")
    return torch.cuda.device_count() if torch is not None and torch.cuda.is_available() else 0
