"""Component: RecZero and RecOne's reinforcement learning: GRPO on rule-based rating rewards."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def rating_grpo(
    dataset: dsl.Input[dsl.Dataset],
    parent: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    config: dict = {},  # noqa: B006
) -> None:
    """Train a language model to reason and rate, by GRPO on format and error of its ratings.

    Args:
        dataset: The dataset directory, of the rating task.
        parent: Model directory to start from.
        config: Fields of the step's configuration; those left out have their default.

    Returns:
        model: The model directory.
        report: Loss, figures on validation, settings.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.rating.stages import train_rating_grpo

    with open_step("rating_grpo", config, dataset=dataset.path, distributed=True) as step:
        manifest = train_rating_grpo(
            step.config,
            dataset=dataset.path,
            model=parent.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish_training(model, manifest, report)
