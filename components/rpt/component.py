"""Component: LARES phase 2: reinforcement post-training of the recurrent depth."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def rpt(
    dataset: dsl.Input[dsl.Dataset],
    parent: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    epochs: int = 30,
    learning_rate: float = 5e-4,
    seed: int = 42,
    options: dict = {},  # noqa: B006
) -> None:
    """Post-train a LARES model on rewards of its sampled reasoning trajectories.

    Args:
        dataset: The dataset directory.
        parent: Model directory of LARES-SPT.
        epochs: Passes over the training samples at most.
        learning_rate: Peak learning rate.
        seed: Seed.
        options: Further fields of RPTConfig.

    Returns:
        model: The model directory.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.sequential.rpt import train_rpt

    values = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed}
    with open_step("rpt", "rpt", values, options, dataset=dataset.path) as step:
        manifest = train_rpt(
            step.config,
            dataset=dataset.path,
            model=parent.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish(model, manifest)
