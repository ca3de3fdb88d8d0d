"""Component: the sequential encoders: popularity, GRU4Rec, Caser, SASRec, LARES (SPT)."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def train_sequential(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    distributed: bool = False,
    config: dict = {},  # noqa: B006
) -> None:
    """Train one encoder on item ids.

    Args:
        dataset: The dataset directory.
        distributed: Whether every accelerator of the run trains, on all its nodes; else one process does.
        config: Fields of the step's configuration; those left out have their default.

    Returns:
        model: The model directory.
        report: Loss, figures on validation, settings.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.sequential.train import train_sequential

    with open_step("train_sequential", config, dataset=dataset.path, distributed=distributed) as step:
        manifest = train_sequential(
            step.config,
            dataset=dataset.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish_training(model, manifest, report)
