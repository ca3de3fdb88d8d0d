"""Which KFP backend answers, and whether it is new enough for what the pipelines ask of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from latentrec.core import UserError
from latentrec.core.settings import KFP_API_VARIABLE

OLDEST_BACKEND = (2, 16)
"""First backend with the security context and the schedule's time, which the pipelines use."""

HEALTH_PATH = "/apis/v2beta1/healthz"
TIMEOUT_S = 10


def check_backend(health: Mapping[str, Any]) -> str:
    """The backend's version as it reports it in its health answer.

    Returns:
        The version, or ``unknown`` where the installation reports none (one built from source).

    Raises:
        UserError: it is older than :data:`OLDEST_BACKEND`.
    """
    # The API server says tag_name; its UI, which most addresses lead to, answers in its place in other words.
    tag = str(health.get("tag_name") or health.get("apiServerTagName") or "").strip()
    found = re.match(r"^v?(\d+)\.(\d+)(\.\d+)?", tag)
    if found is None:
        return "unknown"
    if (int(found[1]), int(found[2])) < OLDEST_BACKEND:
        oldest = ".".join(map(str, OLDEST_BACKEND))
        raise UserError(
            f"the KFP backend is version {tag}, the pipelines need {oldest} or later (security context, "
            "the schedule's time as data cut-off); upgrade the installation",
            code="cluster.backend_too_old",
        )
    return tag.removeprefix("v")


def ask_backend() -> str:
    """Version of the backend that ``LATENTREC_KFP_API`` names, from inside the cluster; ``unknown`` at worst.

    Raises:
        UserError: it answers and is too old.
    """
    address = os.environ.get(KFP_API_VARIABLE, "").rstrip("/")
    if not address:
        return "unknown"
    import requests

    try:
        with requests.Session() as session:
            session.trust_env = False  # a service of the cluster: no proxies
            health = session.get(address + HEALTH_PATH, timeout=TIMEOUT_S).json()
    except (requests.RequestException, ValueError):
        return "unknown"
    return check_backend(health) if isinstance(health, Mapping) else "unknown"
