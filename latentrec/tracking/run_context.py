"""What a step learns from its environment about the run that it belongs to; never from a parameter.

A run id as a parameter would enter KFP's cache key and no step would ever be served from the cache.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from latentrec.core import UserError
from latentrec.core.settings import (
    ARTIFACT_ROOT_VARIABLE,
    GIT_SHA_VARIABLE,
    IMAGE_DIGEST_VARIABLE,
    INJECTED_MLFLOW_RUN_VARIABLE,
    PIPELINE_VARIABLE,
    RUN_ID_VARIABLE,
    STATUS_ROOT_VARIABLE,
)
from latentrec.storage import is_local, local_path
from latentrec.tracking.embedded_store import embedded_path
from latentrec.tracking.moved_store import ARTIFACTS

DEFAULT_EXPERIMENT = "latentrec"
_INJECTED_VARIABLE = "MLFLOW_RUN_ID"
SETTINGS = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")
"""MLflow's variables that an installation sets for every pod, as ``LATENTREC_`` and the name."""


@dataclass(frozen=True)
class RunContext:
    """The run that a step belongs to.

    Attributes:
        tracking_uri: of the MLflow server or database; ``None`` when nothing is tracked.
        experiment: experiment's name.
        run_id: of the pipeline run; ``None`` for a command run by hand.
        pipeline: the DAG's name (``latentr3``…).
        injected_run: MLflow run that the platform has opened: KFP's plugin opens one for each step, below one
            for the pipeline run.
        git_sha: revision of the code, with ``-dirty`` after it when the tree had changes.
        image_digest: of the container; ``none`` in a plain process.
        status_root: where the steps' status is kept; undelivered figures go beside it.
    """

    tracking_uri: str | None
    experiment: str = DEFAULT_EXPERIMENT
    run_id: str | None = None
    pipeline: str | None = None
    injected_run: str | None = None
    git_sha: str = "unknown"
    image_digest: str = "none"
    status_root: str | None = None

    @classmethod
    def from_environment(cls) -> RunContext:
        """Read the environment.

        ``MLFLOW_RUN_ID``, where the platform injects it, is taken out of the environment, or MLflow's own
        calls would write into that run whatever run is meant.
        """
        adopt_settings()
        injected = os.environ.pop(_INJECTED_VARIABLE, None)
        if injected:
            os.environ[INJECTED_MLFLOW_RUN_VARIABLE] = injected
        return cls(
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or None,
            experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT,
            run_id=os.environ.get(RUN_ID_VARIABLE) or None,
            pipeline=os.environ.get(PIPELINE_VARIABLE) or None,
            injected_run=os.environ.get(INJECTED_MLFLOW_RUN_VARIABLE) or None,
            git_sha=os.environ.get(GIT_SHA_VARIABLE) or _git_sha(),
            image_digest=os.environ.get(IMAGE_DIGEST_VARIABLE) or "none",
            status_root=os.environ.get(STATUS_ROOT_VARIABLE) or None,
        )

    def tags(self) -> dict[str, str]:
        """The tags of every run of this pipeline run."""
        tags = {"git.sha": self.git_sha, "image.digest": self.image_digest}
        if self.run_id:
            tags["pipeline.run_id"] = self.run_id
        if self.pipeline:
            tags["pipeline.name"] = self.pipeline
        return tags


SERVED_ARTIFACTS = "mlflow-artifacts:"


def check_artifacts(tracking_uri: str, artifacts: str) -> str:
    """Refuse an experiment on a server whose artifacts would stay on the disk of each pod.

    Args:
        tracking_uri: of the server.
        artifacts: where a run's artifacts go.

    Raises:
        UserError: the location is a path: what a step writes there is gone with its pod.
    """
    if tracking_uri.startswith("http") and is_local(artifacts) and not artifacts.startswith(SERVED_ARTIFACTS):
        raise UserError(
            f"MLflow's experiment keeps its artifacts in {artifacts}, a folder of whichever pod writes them; "
            "choose another experiment (LATENTREC_MLFLOW_EXPERIMENT_NAME), which is made anew with the "
            "server's own location",
            code="tracking.local_artifacts",
        )
    return artifacts


def adopt_settings() -> None:
    """Make the installation's tracking settings MLflow's own, unless the platform has set those itself.

    Pods get them under names of ours: KFP's MLflow plugin sets ``MLFLOW_TRACKING_URI`` and
    ``MLFLOW_EXPERIMENT_ID`` with values, and a pod that has the same name from a ConfigMap too is refused.
    """
    for name in SETTINGS:
        given = os.environ.get(f"LATENTREC_{name}")
        if given:
            os.environ.setdefault(name, given)


def embedded_root(tracking_uri: str) -> str | None:
    """Folder of an embedded SQLite store, where its artifacts and locks stand too; ``None`` for a server."""
    path = embedded_path(tracking_uri)
    return str(path.parent) if path else None


def artifact_location(tracking_uri: str) -> str | None:
    """Where a new experiment keeps its artifacts; ``None`` leaves it to the server.

    ``mlflow-artifacts:/`` is no location but the server's own scheme for artifacts that it stores and serves.
    """
    root = os.environ.get(ARTIFACT_ROOT_VARIABLE)
    if root and root.startswith(SERVED_ARTIFACTS):
        return None
    if root:
        return local_path(root).resolve().as_uri() if is_local(root) else root
    embedded = embedded_root(tracking_uri)
    return (Path(embedded) / ARTIFACTS).as_uri() if embedded else None


def is_main_process() -> bool:
    """False in the ranks above 0 of a distributed launch: one process of a step reports."""
    return os.environ.get("RANK", "0") == "0"


def _git_sha() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        sha = git("rev-parse", "HEAD")
        return sha + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
