"""Links both ways between a run's page in KFP and its run in MLflow, as a browser can open them.

A step reaches MLflow by a name that resolves only in the cluster, and has no address of KFP's page; where
people open the two stands in the installation's settings (``manifests/base/settings.env``).
"""

from __future__ import annotations

import os

from latentrec.core.settings import KFP_UI_VARIABLE, MLFLOW_UI_VARIABLE, RUN_ID_VARIABLE


def kfp_tags() -> dict[str, str]:
    """Tags that lead from the pipeline's MLflow run to its page in KFP; none where that is not known."""
    root, run_id = os.environ.get(KFP_UI_VARIABLE), os.environ.get(RUN_ID_VARIABLE)
    if not root or not run_id:
        return {}
    page = f"{root.rstrip('/')}/#/runs/details/{run_id}"
    # MLflow shows the note above everything else, as Markdown: a link to click.
    return {"kfp.url": page, "mlflow.note.content": f"[This run in Kubeflow Pipelines]({page})"}


def mlflow_links(run: str) -> dict[str, str]:
    """Label and address of the pipeline's MLflow run, for the run summary that KFP shows."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    root = os.environ.get(MLFLOW_UI_VARIABLE) or tracking
    if root.startswith("http"):
        return {"MLflow run": f"{root.rstrip('/')}/#/runs/{run}"}
    return {f"MLflow run {run} in": tracking}
