"""Time limits of MLflow's client: its defaults let one call to an unreachable server take minutes."""

from __future__ import annotations

import os


def bound_http() -> None:
    """Bound retries and timeouts of MLflow's HTTP calls unless the user has set them."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
