"""How a local run differs from one on a cluster."""

from pipeline.dags import pipeline_of
from pipeline.local_runner import tried_once


def retries(pipeline) -> dict[str, int]:
    spec = pipeline.pipeline_spec
    return {
        name: task.retry_policy.max_retry_count
        for part in (spec.root, *spec.components.values())
        if part.HasField("dag")
        for name, task in part.dag.tasks.items()
        if task.HasField("retry_policy")
    }


def test_local_run_tries_each_step_once_and_leaves_the_pipeline_as_it_was():
    pipeline = pipeline_of("recone")
    assert retries(pipeline)["cold-start-sft"] == 3
    with tried_once(pipeline) as changed:
        assert changed is pipeline
        assert retries(pipeline) == {}
    assert retries(pipeline)["cold-start-sft"] == 3
