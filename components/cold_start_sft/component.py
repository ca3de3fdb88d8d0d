"""Component: RecOne's first stage: supervised fine-tuning on reasoning traces."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def cold_start_sft(
    dataset: dsl.Input[dsl.Dataset],
    parent: dsl.Input[dsl.Model],
    traces: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    epochs: int = 2,
    learning_rate: float = 1e-3,
    seed: int = 42,
    options: dict = {},  # noqa: B006
) -> None:
    """Fine-tune on verified reasoning traces, from which reinforcement learning then starts.

    Args:
        dataset: The dataset directory, of the rating task.
        parent: Model directory to start from.
        traces: Reasoning traces, JSON lines.
        epochs: Passes over the traces.
        learning_rate: Peak learning rate.
        seed: Seed.
        options: Further fields of ColdStartConfig.

    Returns:
        model: The model directory.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.rating.stages import train_cold_start

    values = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed}
    with open_step("cold_start_sft", "cold_start", values, options, dataset=dataset.path) as step:
        manifest = train_cold_start(
            step.config,
            dataset=dataset.path,
            traces=traces.path,
            model=parent.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish(model, manifest)
