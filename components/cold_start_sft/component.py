"""Component: RecOne's first stage: supervised fine-tuning on reasoning traces."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def cold_start_sft(
    dataset: dsl.Input[dsl.Dataset],
    parent: dsl.Input[dsl.Model],
    traces: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    config: dict = {},  # noqa: B006
) -> None:
    """Fine-tune on verified reasoning traces, from which reinforcement learning then starts.

    Args:
        dataset: The dataset directory, of the rating task.
        parent: Model directory to start from.
        traces: Reasoning traces, JSON lines.
        config: Fields of the step's configuration; those left out have their default.

    Returns:
        model: The model directory.
        report: Loss, figures on validation, settings.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.rating.stages import train_cold_start

    with open_step("cold_start_sft", config, dataset=dataset.path, distributed=True) as step:
        manifest = train_cold_start(
            step.config,
            dataset=dataset.path,
            traces=traces.path,
            model=parent.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish_training(model, manifest, report)
