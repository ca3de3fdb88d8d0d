"""Component: LatentR3 stage 1: supervised fine-tuning of backbone and LatentRATT together."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def sft(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    start_from: str = "",
    config: dict = {},  # noqa: B006
) -> None:
    """Fine-tune a causal language model, with N latent reasoning tokens, to name the next item's title.

    Args:
        dataset: The dataset directory; needs titles.
        start_from: Registered version to begin at, models:/NAME/VERSION; empty begins at the backbone.
        config: Fields of the step's configuration; those left out have their default.

    Returns:
        model: The model directory.
        report: Loss, figures on validation, settings.
    """
    from latentrec.steps.runtime import checkpoint_root, open_step, registered_model
    from latentrec.training.latentr3.sft import train_sft

    with open_step("sft", config, dataset=dataset.path, distributed=True) as step:
        with registered_model(start_from) as start:
            manifest = train_sft(
                step.config,
                dataset=dataset.path,
                output=model.path,
                init_from=start,
                metric_logger=step.metric_logger,
                checkpoint_root=checkpoint_root(),
            )
        step.finish_training(model, manifest, report)
