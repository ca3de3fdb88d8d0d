"""Component: LatentR3 stage 1: supervised fine-tuning of backbone and LatentRATT together."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def sft(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    backbone: str = "tiny",
    reasoning_tokens: int = 1,
    profile: str = "default",
    epochs: int = 3,
    batch_size: int = 128,
    learning_rate: float = 0.0,
    start_from: str = "",
    seed: int = 42,
    options: dict = {},  # noqa: B006
) -> None:
    """Fine-tune a causal language model, with N latent reasoning tokens, to name the next item's title.

    Args:
        dataset: The dataset directory; needs titles.
        backbone: Preset (tiny), hub id, directory or gs:// location of a causal language model.
        reasoning_tokens: N; 0 is the backbone without reasoning.
        profile: default or paper.
        epochs: Passes over the training samples.
        batch_size: Samples per optimiser step.
        learning_rate: Peak learning rate; 0 is the one that suits backbone and profile.
        start_from: Registered version to begin at, models:/NAME/VERSION; empty begins at the backbone.
        seed: Seed.
        options: Further fields of SFTConfig.

    Returns:
        model: The model directory.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step, registered_model
    from latentrec.training.latentr3.sft import train_sft

    values = {
        "backbone": backbone,
        "reasoning_tokens": reasoning_tokens,
        "profile": profile,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate or None,
        "seed": seed,
    }
    with open_step("sft", "sft", values, options, dataset=dataset.path, distributed=True) as step:
        with registered_model(start_from) as start:
            manifest = train_sft(
                step.config,
                dataset=dataset.path,
                output=model.path,
                init_from=start,
                metric_logger=step.metric_logger,
                checkpoint_root=checkpoint_root(),
            )
        step.finish(model, manifest)
