"""Component: LatentR3 stage 2: an objective over titles, or GRPO on the latent beneath a frozen backbone."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def stage_2(
    dataset: dsl.Input[dsl.Dataset],
    parent: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    objective: str = "title_objective",
    config: dict = {},  # noqa: B006
) -> None:
    """Refine a model of stage 1, by an objective over titles or by GRPO on noised latents.

    Args:
        dataset: The dataset directory.
        parent: Model directory of stage 1.
        objective: title_objective or grpo; both are commands too.
        config: Fields of that step's configuration; those left out have their default.

    Returns:
        model: The model directory.
        report: Loss, figures on validation, settings.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step, stage_2_trainer

    with open_step(objective, config, dataset=dataset.path, distributed=True) as step:
        manifest = stage_2_trainer(objective)(
            step.config,
            dataset=dataset.path,
            model=parent.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish_training(model, manifest, report)
