"""What KFP 2.17's local runner gets wrong about conditions, mended for the time of a run.

In a condition it finds a task's output only where that has no name of its own ("Output"); any other it cannot
resolve, takes the condition for false, and skips what hangs on it. A cluster resolves them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kfp.local.orchestrator.enhanced_dag_orchestrator import ConditionEvaluator

_PREFIX = "pipelinechannel--"


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
