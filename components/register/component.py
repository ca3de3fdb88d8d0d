"""Door to the model registry: a new version, and the aliases moved through the gate."""

from typing import NamedTuple

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("register"), install_kfp_package=False)
def register(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    name: str,
    options: dict = {},  # noqa: B006
) -> NamedTuple("Registration", [("uri", str), ("alias", str), ("promoted", bool)]):  # type: ignore[valid-type]
    """Register a model directory as a served model; it is champion only if the gate says so.

    Args:
        model: The model directory.
        evaluation: The evaluation directory, with the gate's decision.
        name: Name of the registered model.
        options: Further fields of RegisterConfig.
    """
    from latentrec.tracking import register_model
    from latentrec.tracking.doors import open_step

    with open_step("register", "register", {"name": name}, options) as step:
        registration = register_model(step.config, model=model.path, evaluation=evaluation.path)
        step.status.details.update(registration.details())
    return (registration.uri, registration.alias, registration.promoted)  # type: ignore[return-value]
