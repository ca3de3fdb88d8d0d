"""Settings that cannot change a result, such as how often progress is logged, bypass KFP's cache.

A cached step's parameters are its cache key: a changed ``logging_steps`` among them would train again. So
preflight writes such settings beside the run's statuses (``<status root>/<run id>-operational.json``), and
each step reads its own from there. Without a status root they stay parameters.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from latentrec.core import UserError
from latentrec.core.documents import parse_document
from latentrec.core.settings import RUN_ID_VARIABLE, STATUS_ROOT_VARIABLE
from latentrec.core.text import one_line
from latentrec.storage import join, store_for


def write_operational(settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """Keep the run's operational settings, by step; returns whether there was a place for them.

    Args:
        settings: fields by step; nothing is written where there are none.
    """
    uri = _uri()
    if uri is None:
        return False
    if settings:
        store_for(uri).write_bytes(uri, json.dumps(settings, sort_keys=True).encode())
    return True


def read_operational(step: str) -> dict[str, Any]:
    """One step's operational settings of this run; empty where none were given."""
    uri = _uri()
    if uri is None or store_for(uri).stat(uri) is None:
        return {}
    try:
        return dict(parse_document(store_for(uri).read_bytes(uri)).get(step, {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{uri}: not the run's settings ({one_line(error)}); start the run again",
            code="config.unreadable_file",
        ) from None


def _uri() -> str | None:
    root, run_id = os.environ.get(STATUS_ROOT_VARIABLE), os.environ.get(RUN_ID_VARIABLE)
    return join(root, f"{run_id}-operational.json") if root and run_id else None
