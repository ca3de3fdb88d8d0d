"""Steps of a local run that do not wait for each other run at the same time, as they do on a cluster.

KFP's local runner takes one task after the other. Small models gain little from a second core, so
two trainings side by side take hardly longer than one. Only a DAG of plain tasks is run so; conditions,
loops and exit handlers stay KFP's. What of KFP is exchanged for that stands in :mod:`pipeline.kfp_compat`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from kfp.local import graph_utils, io, status
from kfp.local.orchestrator import enhanced_dag_orchestrator as orchestrator
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils

from latentrec.core import UserError
from latentrec.core.settings import LOCAL_STEPS_VARIABLE
from pipeline.kfp_compat import dags_run_by, printing_in_threads
from pipeline.stop_request import end_children

_THREADS = "OMP_NUM_THREADS"


@contextmanager
def side_by_side(at_once: int) -> Iterator[None]:
    """Run up to ``at_once`` tasks of a DAG together, each with its share of the cores.

    Args:
        at_once: 1 leaves everything to KFP.
    """
    if at_once < 2:
        yield
        return

    def run(original: Callable[..., Any], **arguments: Any) -> Any:
        tasks = arguments["dag_component_spec"].dag.tasks
        if len(tasks) < 2 or not all(_is_plain(task, arguments["components"]) for task in tasks.values()):
            return original(**arguments)
        with _share_of_cores(at_once), printing_in_threads():
            return _run_plain_dag(at_once, **arguments)

    with dags_run_by(run):
        yield


def steps_at_once(given: str, *, small: bool) -> int:
    """How many steps of a local run go at the same time.

    Args:
        given: what the user has set (``LATENTREC_LOCAL_STEPS``); empty: two where there are two cores and the
            models are small.
        small: whether the models are, so that two fit into memory and share no GPU.

    Raises:
        UserError: ``given`` is no whole number from 1.
    """
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise UserError(
                f"{LOCAL_STEPS_VARIABLE} is '{given}', expected a whole number from 1",
                code="config.bad_value",
            )
        return int(given)
    return 2 if small and cores() > 1 else 1


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_plain(task: Any, components: Mapping[str, Any]) -> bool:
    return not (
        task.trigger_policy.condition
        or task.trigger_policy.strategy
        or task.WhichOneof("iterator")
        or components[task.component_ref.name].WhichOneof("implementation") == "dag"
    )


def _run_plain_dag(
    at_once: int,
    *,
    dag_component_spec: Any,
    dag_arguments: Mapping[str, Any],
    fail_stack: list[str],
    parent_io_store: Any = None,
    **shared: Any,
) -> tuple[dict[str, Any], Any]:
    """What KFP's ``run_enhanced_dag`` does for plain tasks, with several of them in threads."""
    inputs = OrchestratorUtils.join_user_inputs_and_defaults(
        dag_arguments=dict(dag_arguments), dag_inputs_spec=dag_component_spec.input_definitions
    )
    store = io.IOStore(parent=parent_io_store)
    for name, value in inputs.items():
        store.put_parent_input(name, value)
    tasks = dag_component_spec.dag.tasks
    waiting = _longest_chain_first(tasks)
    done: set[str] = set()
    running: dict[Future, str] = {}
    with ThreadPoolExecutor(at_once) as pool:
        while waiting or running:
            for name in [one for one in waiting if set(tasks[one].dependent_tasks) <= done]:
                if fail_stack or len(running) == at_once:
                    break
                waiting.remove(name)
                future = pool.submit(
                    orchestrator.execute_task,
                    task_name=name,
                    task_spec=tasks[name],
                    io_store=store,
                    fail_stack=fail_stack,
                    **shared,
                )
                running[future] = name
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                try:
                    outputs, state = future.result()
                except BaseException:
                    end_children()
                    raise
                if state == status.Status.FAILURE:
                    fail_stack.append(name)
                    end_children()  # steps beside it: the run has failed, and they resume from checkpoints
                    continue
                done.add(name)
                for key, output in outputs.items():
                    store.put_task_output(name, key, output)
    if fail_stack:
        return {}, status.Status.FAILURE
    outputs = OrchestratorUtils.get_dag_outputs(
        dag_outputs_spec=dag_component_spec.dag.outputs, io_store=store
    )
    return outputs, status.Status.SUCCESS


def _longest_chain_first(tasks: Mapping[str, Any]) -> list[str]:
    """Names of tasks; those with the longest chain of tasks behind them first, else in KFP's order."""
    order = list(reversed(graph_utils.topological_sort_tasks(dict(tasks))))
    behind = dict.fromkeys(order, 0)
    for name in reversed(order):
        for before in tasks[name].dependent_tasks:
            behind[before] = max(behind[before], behind[name] + 1)
    return sorted(order, key=lambda name: -behind[name])


@contextmanager
def _share_of_cores(at_once: int) -> Iterator[None]:
    """Give each step its share of the cores, where the user has not said how many threads it gets."""
    if _THREADS in os.environ:
        yield
        return
    os.environ[_THREADS] = str(max(1, cores() // at_once))
    try:
        yield
    finally:
        del os.environ[_THREADS]
