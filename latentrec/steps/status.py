"""How a step went: ``<run root>/status/<run id>/<step>.json``, which the run summary reads.

KFP's own final status does not say which step failed or why; each step writes it here. The run id and
the root come from the environment (``LATENTREC_RUN_ID``, ``LATENTREC_STATUS_ROOT``), never from a
parameter, which would defeat caching. Without them (a command run by hand) nothing is recorded.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from latentrec.core import EXIT_BAD_INPUT, EXIT_INTERRUPTED, Interrupted, UserError
from latentrec.core.settings import RUN_ID_VARIABLE, STATUS_ROOT_VARIABLE
from latentrec.storage.checkpoints import StaleAttempt
from latentrec.storage.types import StorageError
from latentrec.storage.uri import join, store_for


@dataclass
class StepStatus:
    """State of one step: ``running``, ``succeeded``, ``failed``, ``bad_input`` or ``interrupted``.

    ``started`` and ``ended`` are UTC seconds; ``gpu_seconds`` is wall time times devices; ``details`` holds
    what the summary shows (counts, a verdict, links).
    """

    step: str
    state: str = "running"
    started: float = 0.0
    ended: float | None = None
    gpu_seconds: float = 0.0
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@contextmanager
def step_status(step: str) -> Iterator[StepStatus]:
    """Record the step's beginning and end; yields the status so that ``details`` can be filled in."""
    status = StepStatus(step=step, started=time.time())
    _write(status)
    try:
        yield status
    except BaseException as error:
        status.state = _state_of(error)
        status.error = str(error) or type(error).__name__
        raise
    else:
        status.state = "succeeded"
    finally:
        status.ended = time.time()
        status.gpu_seconds = (status.ended - status.started) * _cuda_devices()
        _write(status)


@contextmanager
def exit_code_on_error() -> Iterator[None]:
    """Turn the library's exceptions into exit codes: 2 bad input, 143 interrupted, 1 anything else."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_BAD_INPUT) from None
    except Interrupted as error:
        print(f"interrupted: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except (StorageError, StaleAttempt) as error:
        print(f"failed: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None


def read_step_statuses(root: str, run_id: str) -> list[StepStatus]:
    """Every step's status of one run, in order of start."""
    prefix = join(root, run_id) + "/"
    store = store_for(root)
    found = [StepStatus(**json.loads(store.read_bytes(info.uri))) for info in store.list(prefix)]
    return sorted(found, key=lambda status: status.started)


def _write(status: StepStatus) -> None:
    root, run_id = os.environ.get(STATUS_ROOT_VARIABLE), os.environ.get(RUN_ID_VARIABLE)
    if root and run_id:
        uri = join(root, run_id, f"{status.step}.json")
        store_for(uri).write_bytes(uri, json.dumps(asdict(status), sort_keys=True).encode())


def _state_of(error: BaseException) -> str:
    if isinstance(error, UserError):
        return "bad_input"
    return "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"


def _cuda_devices() -> int:
    torch = sys.modules.get("torch")
    return torch.cuda.device_count() if torch is not None and torch.cuda.is_available() else 0
