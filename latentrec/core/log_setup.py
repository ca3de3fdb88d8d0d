"""How a command or step logs: plain lines on a terminal, times and levels in a pod, JSON for a log service.

The library logs through ``logging`` and configures nothing; a process that is ours (a command, a component)
calls :func:`configure_logging` once at its start.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from latentrec.core.errors import UserError
from latentrec.core.redact import redact
from latentrec.core.settings import LOG_FORMAT_VARIABLE, RUN_ID_VARIABLE, STEP_VARIABLE

FORMATS = ("text", "json")
_POD_VARIABLE = "KUBERNETES_SERVICE_HOST"
"""Kubernetes sets it in every container."""


def configure_logging() -> None:
    """Log to standard error, in the format that ``LATENTREC_LOG_FORMAT`` names (``text``, ``json``).

    A plain handler that a framework has put on the root logger (KFP's executor does) makes room for ours, so
    that no line comes twice; handlers of other kinds stay.

    Raises:
        UserError: there is no such format.
    """
    kind = os.environ.get(LOG_FORMAT_VARIABLE) or "text"
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) in (logging.StreamHandler, _StandardError):
            root.removeHandler(handler)
    known = kind in FORMATS
    handler = _StandardError()
    handler.setFormatter(_formatter(kind if known else "text"))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("latentrec").setLevel(logging.INFO)
    if not known:
        raise UserError(
            f"{LOG_FORMAT_VARIABLE} is {kind!r}; allowed: {', '.join(FORMATS)}", code="config.bad_value"
        )
    logging.captureWarnings(kind == "json")


def _formatter(kind: str) -> logging.Formatter:
    if kind == "json":
        return JsonFormatter()
    return TimedFormatter() if os.environ.get(_POD_VARIABLE) else ConsoleFormatter()


class ConsoleFormatter(logging.Formatter):
    """For people who started the command: the message, with ``warning:`` or ``error:`` before what is one.

    A record's ``label`` (of ``extra``) stands in the level's place.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, or the traceback of an unexpected fault."""
        if record.exc_info:
            return redact(self.formatException(record.exc_info))
        label = getattr(record, "label", record.levelname.lower() if record.levelno > logging.INFO else "")
        return redact(f"{label}: {record.getMessage()}" if label else record.getMessage())


class TimedFormatter(ConsoleFormatter):
    """For a pod's log: UTC time and level first. Continuation lines are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """``2026-01-05T03:00:00.123Z WARNING message``."""
        text = super().format(record).replace("\n", "\n    ")
        return f"{_time(record)} {record.levelname:<7} {text}"


class JsonFormatter(logging.Formatter):
    """For Cloud Logging and its like: one JSON object a line, with the fields that they index."""

    def format(self, record: logging.LogRecord) -> str:
        """``time``, ``severity``, ``message``, ``logger``, and what there is of ``error_code``, ``step``,
        ``run_id``, ``exception``."""
        body: dict[str, Any] = {
            "time": _time(record),
            "severity": record.levelname,
            "message": redact(record.getMessage()),
            "logger": record.name,
            "error_code": getattr(record, "error_code", None),
            "step": os.environ.get(STEP_VARIABLE),
            "run_id": os.environ.get(RUN_ID_VARIABLE),
        }
        if record.exc_info:
            body["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps({name: value for name, value in body.items() if value}, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the moment of writing."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr
