"""Component: RecZero and RecOne's reinforcement learning: GRPO on rule-based rating rewards."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def rating_grpo(
    dataset: dsl.Input[dsl.Dataset],
    parent: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    profile: str = "default",
    steps: int = -1,
    group_size: int = 8,
    learning_rate: float = 0.0,
    seed: int = 42,
    options: dict = {},  # noqa: B006
) -> None:
    """Train a language model to reason and rate, by GRPO on format and error of its ratings.

    Args:
        dataset: The dataset directory, of the rating task.
        parent: Model directory to start from.
        profile: default or paper.
        steps: Optimiser steps; 0 for whole passes over the samples, -1 for the profile's.
        group_size: Rollouts per prompt.
        learning_rate: Learning rate; 0 is the profile's.
        seed: Seed.
        options: Further fields of RatingGRPOConfig.

    Returns:
        model: The model directory.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step
    from latentrec.training.rating.stages import train_rating_grpo

    values = {
        "profile": profile,
        "steps": steps if steps >= 0 else None,
        "group_size": group_size,
        "learning_rate": learning_rate or None,
        "seed": seed,
    }
    with open_step("rating_grpo", "rating", values, options, dataset=dataset.path) as step:
        manifest = train_rating_grpo(
            step.config,
            dataset=dataset.path,
            model=parent.path,
            output=model.path,
            metric_logger=step.metric_logger,
            checkpoint_root=checkpoint_root(),
        )
        step.finish(model, manifest)
