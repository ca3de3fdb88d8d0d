"""Component: the model registry: a new version, and the aliases moved through the gate."""

from typing import NamedTuple

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("register"), install_kfp_package=False)
def register(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    name: str,
    dataset: dsl.Input[dsl.Dataset],
    assistant: dsl.Input[dsl.Model] = None,  # type: ignore[assignment]
) -> NamedTuple("Registration", [("uri", str), ("gate", str), ("promoted", bool)]):  # type: ignore[valid-type]
    """Register a model directory as a served model; it is champion only if the gate says so.

    Args:
        model: The model directory.
        evaluation: The evaluation directory, with the gate's decision.
        name: Name of the registered model; empty: by system and dataset, such as latentr3-gift-cards.
        dataset: The dataset directory that it was trained on; the next run compares its data with it.
        assistant: Model directory of the assistant, served along where the d3 decodings were evaluated.

    Returns:
        uri: The registered version, models:/NAME/VERSION.
        gate: What the gate did: promoted, kept or refused.
        promoted: Whether it is champion now.
    """
    from latentrec.steps.runtime import run_register_step

    registered = run_register_step(
        name,
        model_dir=model.path,
        evaluation_dir=evaluation.path,
        dataset_dir=dataset.path,
        assistant_dir=assistant.path if assistant else None,
    )
    return (registered.model.uri, registered.event.action, registered.promoted)  # type: ignore[return-value]
