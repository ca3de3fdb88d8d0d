"""``python -m pipeline.tracking_uri``: where `make run` tracks, for the Makefile's other commands."""

from __future__ import annotations

import os
from pathlib import Path

from latentrec.tracking.embedded_store import embedded_uri


def runs_folder() -> Path:
    """``RUNS_DIR``, absolute; ``runs`` in the working directory where nothing is set."""
    return Path(os.environ.get("RUNS_DIR") or "runs").resolve()


def tracking_uri(root: Path) -> str:
    """Location of the embedded MLflow store of local runs below ``root``."""
    return embedded_uri(root / "mlflow.db")


if __name__ == "__main__":
    print(tracking_uri(runs_folder()))
