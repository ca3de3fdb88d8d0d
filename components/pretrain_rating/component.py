"""Component: the rating systems' starting model: a placeholder, or a real instruct model by name."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def pretrain_rating(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    config: dict = {},  # noqa: B006
) -> None:
    """Pre-train the small placeholder for an instruct model, or name a real one to start from.

    Args:
        dataset: The dataset directory, of the rating task.
        config: Fields of the step's configuration; those left out have their default.

    Returns:
        model: The model directory.
        report: Loss, figures on validation, settings.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.rating.stages import pretrain_rating

    with open_step("pretrain_rating", config, dataset=dataset.path) as step:
        manifest = pretrain_rating(
            step.config,
            dataset=dataset.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish_training(model, manifest, report)
