"""Component: data preparation: raw Amazon reviews in, dataset directory out."""

from typing import NamedTuple

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("data-prep"), install_kfp_package=False)
def data_prep(
    inputs_fingerprint: str,
    config: dict,
    dataset: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Prepared", [("fingerprint", str), ("content", str)]):  # type: ignore[valid-type]
    """Clean, filter and split Amazon reviews.

    Args:
        inputs_fingerprint: What the input files hold, from preflight; enters the cache key and is compared.
        config: Fields of the step's configuration, reviews among them; those left out have their default.

    Returns:
        dataset: The dataset directory.
        report: The data report.
        fingerprint: Of the dataset, with the configuration that made it.
        content: Hash of its tables alone; equal where nothing is new.
    """
    import shutil

    from latentrec.data import content_of, prepare
    from latentrec.steps.runtime import open_step

    with open_step("data_prep", config) as step:
        manifest = prepare(step.config, dataset.path, inputs_fingerprint=inputs_fingerprint)
        step.finish(dataset, manifest)
        shutil.copyfile(f"{dataset.path}/report.html", report.path)
    return (manifest.fingerprint, content_of(manifest))  # type: ignore[return-value]
