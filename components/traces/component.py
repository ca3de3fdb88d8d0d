"""Component: reasoning traces for RecOne's cold start."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def traces(
    dataset: dsl.Input[dsl.Dataset],
    records: dsl.Output[dsl.Artifact],
    config: dict = {},  # noqa: B006
) -> None:
    """Ask an OpenAI-compatible endpoint for reasoning traces, or write them by template.

    Args:
        dataset: The dataset directory, of the rating task.
        config: Fields of the step's configuration; those left out have their default.

    Returns:
        records: The traces, JSON lines.
    """
    from latentrec.steps.runtime import open_step
    from latentrec.training.rating.stages import make_traces

    with open_step("traces", config, dataset=dataset.path) as step:
        report = make_traces(
            step.config, dataset=dataset.path, output=records.path, metric_logger=step.metric_logger
        )
        step.status.details.update(report.figures())
