"""What KFP's local runner does otherwise than a user expects, changed for the time of a run.

Conditions: in a condition it finds a task's output only where that has no name of its own ("Output"); any
other it cannot resolve, takes the condition for false, and skips what hangs on it. A cluster resolves them.

Artifacts: it hands a step the type of another task's artifact, a cluster's launcher does not. With it, an
annotation that only works by that type (``Optional[Input[Model]]``) runs here and fails there.

Containers: it removes one before it asks how it ended, so that a failed one passes for a success.

Failures: after a failed task it goes on with every task that does not depend on it, for minutes or hours.

And one thing of its compiler: each setting of a task reads the source of every function on the stack.

Order: it runs one task at a time and offers no hook for another order; its indented printing is not made for
threads.

Everything of KFP that is replaced stands here, and was last run with kfp 2.17.0
(``tests/test_dependencies.py`` fails when the locks hold another version).
"""

from __future__ import annotations

import builtins
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from kfp import dsl
from kfp.dsl.pipeline_task import PipelineTask
from kfp.local import executor_input_utils, logging_utils, status, task_dispatcher
from kfp.local.orchestrator import enhanced_dag_orchestrator
from kfp.local.orchestrator.enhanced_dag_orchestrator import ConditionEvaluator

from latentrec.core.settings import STEP_VARIABLE

_PREFIX = "pipelinechannel--"


@contextmanager
def containers_run_by(run: Callable[..., int]) -> Iterator[None]:
    """Let ``run`` run a task's container, with the arguments of KFP's function; it returns the exit code."""
    from kfp.local import docker_task_handler

    before = docker_task_handler.run_docker_container
    docker_task_handler.run_docker_container = run
    try:
        yield
    finally:
        docker_task_handler.run_docker_container = before


@contextmanager
def settings_without_sources() -> Iterator[None]:
    """Let a task's setters find their own name only where they refuse, and from their frame alone.

    KFP asks ``inspect.stack()`` for it each time, which searches every loaded module for the source of every
    frame: two thirds of the time that four pipelines take to compile.
    """
    original = PipelineTask._ensure_container_spec_exists

    def ensure(task: PipelineTask) -> None:
        if task.container_spec is None:
            raise ValueError(f"{sys._getframe(1).f_code.co_name} can only be used on single-step components")

    PipelineTask._ensure_container_spec_exists = ensure
    try:
        yield
    finally:
        PipelineTask._ensure_container_spec_exists = original


@contextmanager
def named_outputs_in_conditions() -> Iterator[None]:
    """Let conditions read any output of a task that has run."""
    original = ConditionEvaluator._resolve_pipeline_channel

    def resolve(channel: str, store: Any) -> Any:
        name = channel.removeprefix(_PREFIX)
        # Names of tasks hold hyphens too: the longest task that fits is the one.
        for task in sorted(store._task_output_data, key=len, reverse=True):
            outputs = store._task_output_data[task]
            output = name.removeprefix(f"{task}-")
            if output != name and output in outputs:
                return outputs[output]
        return original(channel, store)

    ConditionEvaluator._resolve_pipeline_channel = staticmethod(resolve)
    try:
        yield
    finally:
        ConditionEvaluator._resolve_pipeline_channel = staticmethod(original)


@contextmanager
def artifacts_as_launched() -> Iterator[None]:
    """Hand input artifacts over as a cluster's launcher does: without their schema titles."""
    original = executor_input_utils.construct_executor_input

    def construct(*arguments: Any, **named: Any) -> Any:
        made = original(*arguments, **named)
        for listed in made.inputs.artifacts.values():
            for artifact in listed.artifacts:
                artifact.type.instance_schema = ""  # of a oneof: takes the title's place
                artifact.type.schema_version = ""
        return made

    executor_input_utils.construct_executor_input = construct
    try:
        yield
    finally:
        executor_input_utils.construct_executor_input = original


@contextmanager
def dags_run_by(run: Callable[..., Any]) -> Iterator[None]:
    """Let ``run`` take every DAG of a local run.

    Args:
        run: called with KFP's own function, then with its arguments by name.
    """
    original = enhanced_dag_orchestrator.run_enhanced_dag
    enhanced_dag_orchestrator.run_enhanced_dag = partial(run, original)
    try:
        yield
    finally:
        enhanced_dag_orchestrator.run_enhanced_dag = original


@contextmanager
def printing_in_threads() -> Iterator[None]:
    """Let tasks in several threads print and log, each with an indentation of its own.

    KFP indents a task's lines by exchanging ``print`` and the log's handlers, which threads undo for each
    other (``kfp.local.logging_utils``); here both are exchanged once.
    """
    indent = threading.local()
    plain_print, context, indented = (
        builtins.print,
        logging_utils.local_logger_context,
        logging_utils.indented_print,
    )

    def print_indented(*values: Any, **options: Any) -> None:
        spaces = getattr(indent, "spaces", 0)
        if spaces:
            plain_print(" " * spaces, end="")
        plain_print(*values, **options)

    @contextmanager
    def indented_here(num_spaces: int = 4) -> Iterator[None]:
        before = getattr(indent, "spaces", 0)
        indent.spaces = before + num_spaces
        try:
            yield
        finally:
            indent.spaces = before

    with context():
        builtins.print = print_indented
        logging_utils.local_logger_context = contextlib.nullcontext
        logging_utils.indented_print = indented_here
        try:
            yield
        finally:
            builtins.print = plain_print
            logging_utils.local_logger_context = context
            logging_utils.indented_print = indented


@contextmanager
def stopped_by_first_failure(
    announce: Callable[[str], None], *, always: str, stopped: Callable[[], bool] = lambda: False
) -> Iterator[list[str]]:
    """After a failed task start no other but the step ``always``; say which step begins.

    Yields the names of the steps whose tasks have failed.

    Args:
        announce: called with the step's name before its task runs.
        always: the exit handler's step.
        stopped: whether the user has stopped the run; then no step at all begins.
    """
    original = task_dispatcher.run_single_task_implementation
    failed: list[str] = []

    def run(**arguments: Any) -> Any:
        variables = {one.name: one.value for one in arguments["executor_spec"].container.env}
        step = variables.get(STEP_VARIABLE) or arguments["component_name"].removeprefix("comp-")
        if stopped() or (failed and step != always):
            return {}, status.Status.FAILURE
        announce(step)
        arguments["arguments"] = _with_schedule_time(arguments["arguments"])
        outputs, state = original(**arguments)
        if state == status.Status.FAILURE:
            failed.append(step)
        return outputs, state

    task_dispatcher.run_single_task_implementation = run
    try:
        yield failed
    finally:
        task_dispatcher.run_single_task_implementation = original


def _with_schedule_time(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A task's inputs with now in the place of the schedule's time.

    KFP's backend gives a run without a schedule the time that it was made at; the local runner of kfp 2.17
    takes the placeholder for a reference to an input (``placeholder_utils.resolve_io_placeholders``) and
    fails.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    placeholder = dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER
    return {name: now if value == placeholder else value for name, value in arguments.items()}
