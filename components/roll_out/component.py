"""Component: rolls a promoted version out as a KServe InferenceService; in no pipeline unless asked for."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("register"), install_kfp_package=False)
def roll_out(
    uri: str, promoted: bool, form: str = "image", namespace: str = "", mode: str = "knative"
) -> str:
    """Apply the version's InferenceService and wait until it serves; nothing where it was not promoted.

    Args:
        uri: The registered version, models:/NAME/VERSION.
        promoted: Whether it is champion now.
        form: image (our image) or mlflow (KServe's own runtime), as of make serve-manifest.
        namespace: Of the service; empty: the one that the steps run in.
        mode: knative, or standard where KServe runs without Knative (no scaling to zero).

    Returns:
        Output: The address that KServe gives the service; empty where nothing was rolled out.
    """
    from latentrec.steps.roll_out import run_roll_out_step

    return run_roll_out_step(uri, promoted, form, namespace, mode)
