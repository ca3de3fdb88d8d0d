"""A step that trains on several nodes: its own pod makes a TrainJob, follows it, and takes its outputs.

The job's name is the same in every attempt of the step, so a step's pod that was lost while its job ran goes
on following it. The job belongs to the run's workflow and goes with it; the step removes it at its end, and
the run summary whatever a lost step has left.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from latentrec.core import EXIT_BAD_INPUT, EXIT_INTERRUPTED, Interrupted, UserError
from latentrec.core.settings import RUN_ID_VARIABLE, STEP_VARIABLE
from latentrec.steps.failures import report_failure
from latentrec.steps.kfp_files import (
    component_source,
    executor_input,
    fetch_outputs,
    option,
    same_in_every_attempt,
)
from latentrec.steps.operational import read_operational
from latentrec.steps.pods import POD_VARIABLE, KubernetesApi
from latentrec.steps.status import close_lost_status
from latentrec.steps.train_job import Nodes, job_name, train_job
from latentrec.steps.train_job_client import TrainJobClient

logger = logging.getLogger(__name__)

OPERATIONAL = "nodes"
"""Under this key preflight keeps the run's :class:`Nodes`: they place a step, its result stays the same."""
MODULE = "latentrec.steps.node_process"


def nodes_wanted() -> Nodes:
    """What preflight decided for this run; one node where it decided nothing."""
    return Nodes(**read_operational(OPERATIONAL))


def run_on_nodes(nodes: Nodes, arguments: Sequence[str] | None = None) -> int:
    """Have a TrainJob do the work of this step's process; the exit code to leave with.

    Args:
        nodes: how many and of what size.
        arguments: of KFP's executor; ``None``: this process's own.

    Raises:
        UserError: this is no pod, or Kubernetes refuses the job.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    api = KubernetesApi.from_pod()
    if api is None:
        raise UserError(
            f"gpu_nodes is {nodes.count}, which needs a pod in Kubernetes; here is none",
            code="nodes.no_cluster",
        )
    client = TrainJobClient(api)
    job = make_job(nodes, client.own_pod(os.environ[POD_VARIABLE]), given)
    name = job["metadata"]["name"]
    with _stopping():
        try:
            logger.info("TrainJob %s on %s nodes: %s", name, nodes.count, client.create_or_adopt(job))
            ended = client.follow(name)
        except Interrupted:
            _stop(client, api, name)
            close_lost_status("the step was stopped while its TrainJob ran")
            return EXIT_INTERRUPTED
        if not ended.succeeded:
            logger.error("%s", ended.reason, extra={"label": "failed"})
            close_lost_status(ended.reason, replace=True)
            client.delete(name)
            return EXIT_BAD_INPUT if ended.bad_input else 1
        fetch_outputs(executor_input(given))
        client.delete(name)
    return 0


def make_job(nodes: Nodes, pod: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """The TrainJob that runs KFP's executor with these arguments on several nodes."""
    run_id, step = os.environ.get(RUN_ID_VARIABLE, ""), os.environ.get(STEP_VARIABLE, "step")
    module = option("--component_module_path", arguments)
    kept = [part for part in arguments if part not in ("--component_module_path", module)]
    return train_job(
        job_name(run_id, step, same_in_every_attempt(kept)),
        nodes,
        pod,
        command=["python", "-m", MODULE],
        arguments=[component_source(arguments), "--", *kept],
        environment=os.environ,
        run_id=run_id,
    )


def check_nodes(nodes: Nodes) -> str:
    """For preflight: whether the cluster would take such a job, asked without making it.

    Raises:
        UserError: there is no cluster, no Kubeflow Trainer, no runtime of ours, or no permission.
    """
    api = KubernetesApi.from_pod()
    if api is None or not os.environ.get(POD_VARIABLE):
        raise UserError(
            f"gpu_nodes is {nodes.count}; several nodes need a Kubernetes cluster with Kubeflow Trainer, and "
            "this run is on one machine: leave gpu_nodes at 1",
            code="nodes.no_cluster",
        )
    client = TrainJobClient(api)
    job = train_job(
        job_name(os.environ.get(RUN_ID_VARIABLE, ""), "preflight", []),
        nodes,
        client.own_pod(os.environ[POD_VARIABLE]),
        command=["python", "-m", MODULE],
        arguments=[],
        environment=os.environ,
        run_id=os.environ.get(RUN_ID_VARIABLE, ""),
    )
    client.check(job)
    return f"{nodes.count} pods of a TrainJob"


def remove_left_jobs(run_id: str) -> list[str]:
    """For the run summary: end the TrainJobs that a lost step of this run has left; their names."""
    api = KubernetesApi.from_pod()
    if api is None or not os.environ.get(POD_VARIABLE):
        return []
    client = TrainJobClient(api, away_s=20)
    names = client.of_run(run_id)
    for name in names:
        client.delete(name)
    return names


def _stop(client: TrainJobClient, api: KubernetesApi, name: str) -> None:
    """A run that a user ended needs no job; a pod that was taken away leaves it to the next attempt."""
    workflow = api.workflow_of(os.environ[POD_VARIABLE])
    if workflow is None or api.is_terminated(workflow):
        client.delete(name)
    else:
        logger.warning("this pod is taken away; TrainJob %s runs on for the step's next attempt", name)


@contextmanager
def _stopping() -> Iterator[None]:
    """Raise ``Interrupted`` on SIGTERM, wherever the step waits."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"{signal.Signals(number).name} while a TrainJob ran")

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    except BaseException as error:
        report_failure(error, 1)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
