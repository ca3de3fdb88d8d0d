"""Component: LatentR3 stage 2: GRPO on titles, or on the latent beneath a frozen backbone."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def grpo(
    dataset: dsl.Input[dsl.Dataset],
    parent: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    profile: str = "default",
    epochs: float = 1.0,
    group_size: int = 8,
    noise_std: float = 0.0,
    learning_rate: float = 0.0,
    seed: int = 42,
    options: dict = {},  # noqa: B006
) -> None:
    """Refine a fine-tuned model by group-relative policy optimisation, on titles or on its latents.

    Args:
        dataset: The dataset directory.
        parent: Model directory of stage 1.
        profile: default or paper.
        epochs: Passes over the training samples.
        group_size: K, copies of a prompt where its latents are noised; a step has batch_size / K prompts.
        noise_std: Standard deviation of the noise on latents, where they are noised; 0 is the default.
        learning_rate: Peak learning rate; 0 is the profile's.
        seed: Seed.
        options: Further fields of GRPOConfig.

    Returns:
        model: The model directory.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.latentr3.grpo import train_grpo

    values = {
        "profile": profile,
        "epochs": epochs,
        "group_size": group_size,
        "noise_std": noise_std or None,
        "learning_rate": learning_rate or None,
        "seed": seed,
    }
    with open_step("grpo", "grpo", values, options, dataset=dataset.path, distributed=True) as step:
        manifest = train_grpo(
            step.config,
            dataset=dataset.path,
            model=parent.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish(model, manifest)
