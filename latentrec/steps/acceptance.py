"""What the acceptance of an installation asks MLflow: how a run ended, and whether its model loads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrackedRun:
    """A pipeline run as MLflow knows it.

    Attributes:
        parents: status of the runs that stand for the pipeline run; one, where all is well.
        running: names of the runs that still run.
    """

    parents: tuple[str, ...]
    running: tuple[str, ...]


def tracked_run(run_id: str) -> TrackedRun:
    """The MLflow runs of a pipeline run, in whichever experiment they are.

    Args:
        run_id: KFP's.
    """
    from mlflow.tracking import MlflowClient

    from latentrec.tracking.runs import ROLE_TAG

    client = MlflowClient()
    everywhere = [entry.experiment_id for entry in client.search_experiments()]
    runs = client.search_runs(everywhere, f"tags.`pipeline.run_id` = '{run_id}'", max_results=1000)
    return TrackedRun(
        tuple(run.info.status for run in runs if run.data.tags.get(ROLE_TAG) == "pipeline"),
        tuple(sorted(str(run.info.run_name) for run in runs if run.info.status == "RUNNING")),
    )


def try_registered_model(name: str) -> str:
    """Load the newest version of a registered model and ask it for three items; the version's URI.

    Raises:
        LookupError: there is no version, or it recommends fewer.
    """
    import pandas as pd

    from latentrec.registry.model_registry import CHAMPION, Registry

    registry = Registry()
    version = registry.by_alias(name, "challenger") or registry.by_alias(name, CHAMPION)
    if version is None:
        raise LookupError(f"{name} has no version")
    answer = registry.load(version).predict(pd.DataFrame({"history": [[]]}), params={"k": 3})
    found = len(answer["item_keys"][0])
    if found != 3:
        raise LookupError(f"{version.uri} recommends {found} items, asked for 3")
    return version.uri
