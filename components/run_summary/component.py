"""Exit handler: what happened in the run, step by step, as Markdown."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("preflight"), install_kfp_package=False)
def run_summary(
    outcome: dsl.PipelineTaskFinalStatus,
    summary: dsl.Output[dsl.Markdown],
    steps: list,
) -> None:
    """Summarize the run from the steps' status files: state, duration, reason, GPU hours, verdict, links.

    Args:
        outcome: KFP's own final status; it does not say which step failed.
        steps: Names of the run's steps in order; one without a status was not reached or came from the cache.

    Returns:
        summary: The summary.
    """
    from latentrec.steps.run_summary import write_run_summary

    write_run_summary(
        summary.path, steps=steps, state=outcome.state, workflow=outcome.pipeline_job_resource_name
    )
