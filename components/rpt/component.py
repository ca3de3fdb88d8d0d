"""Component: LARES phase 2: reinforcement post-training of the recurrent depth."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def rpt(
    dataset: dsl.Input[dsl.Dataset],
    parent: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    config: dict = {},  # noqa: B006
) -> None:
    """Post-train a LARES model on rewards of its sampled reasoning trajectories.

    Args:
        dataset: The dataset directory.
        parent: Model directory of LARES-SPT.
        config: Fields of the step's configuration; those left out have their default.

    Returns:
        model: The model directory.
        report: Loss, figures on validation, settings.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.sequential.rpt import train_rpt

    with open_step("rpt", config, dataset=dataset.path, distributed=True) as step:
        manifest = train_rpt(
            step.config,
            dataset=dataset.path,
            model=parent.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish_training(model, manifest, report)
