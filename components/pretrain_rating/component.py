"""Component: the rating systems' starting model: a placeholder, or a real instruct model by name."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def pretrain_rating(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    backbone: str = "tiny",
    seed: int = 42,
    options: dict = {},  # noqa: B006
) -> None:
    """Pre-train the small placeholder for an instruct model, or name a real one to start from.

    Args:
        dataset: The dataset directory, of the rating task.
        backbone: tiny pre-trains the placeholder; a directory or hub id is passed on as it is.
        seed: Seed.
        options: Further fields of PretrainRatingConfig.

    Returns:
        model: The model directory.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.rating.stages import pretrain_rating

    values = {"backbone": backbone, "seed": seed}
    with open_step("pretrain_rating", "pretrain", values, options, dataset=dataset.path) as step:
        manifest = pretrain_rating(
            step.config,
            dataset=dataset.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish(model, manifest)
