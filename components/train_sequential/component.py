"""Component: the sequential encoders: popularity, GRU4Rec, Caser, SASRec, LARES (SPT)."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def train_sequential(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    encoder: str = "sasrec",
    max_epochs: int = 200,
    seed: int = 42,
    options: dict = {},  # noqa: B006
) -> None:
    """Train one encoder on item ids.

    Args:
        dataset: The dataset directory.
        encoder: popularity, gru4rec, caser, sasrec or lares.
        max_epochs: Passes over the training samples at most.
        seed: Seed.
        options: Further fields of SequentialConfig.

    Returns:
        model: The model directory.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.sequential.train import train_sequential

    values = {"encoder": encoder, "max_epochs": max_epochs, "seed": seed}
    with open_step("train_sequential", "sequential", values, options, dataset=dataset.path) as step:
        manifest = train_sequential(
            step.config,
            dataset=dataset.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish(model, manifest)
