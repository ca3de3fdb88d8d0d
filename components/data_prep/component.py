"""Component: data preparation: raw Amazon reviews in, dataset directory out."""

from typing import NamedTuple

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("data-prep"), install_kfp_package=False)
def data_prep(
    reviews: str,
    inputs_fingerprint: str,
    dataset: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metadata: str = "",
    data_cutoff: str = "",
    task: str = "next_item",
    profile: str = "default",
    k_core: int = 5,
    max_history: int = 10,
    split: str = "temporal",
    window_start: str = "",
    window_end: str = "",
    title_filter: str = "strict",
    skip_bad_lines: bool = False,
    seed: int = 42,
    options: dict = {},  # noqa: B006
) -> NamedTuple("Prepared", [("fingerprint", str), ("content", str)]):  # type: ignore[valid-type]
    """Clean, filter and split Amazon reviews.

    Args:
        reviews: Review file: path, gs:// or https:// location, plain or compressed; several with commas.
        inputs_fingerprint: What the input files hold, from preflight; enters the cache key and is compared.
        metadata: Product metadata, like reviews; empty for ID-based and rating tasks.
        data_cutoff: Day that ends the window where window_end is empty, YYYY-MM-DD, from preflight.
        task: next_item or rating.
        profile: default or paper (the published recipe).
        k_core: Least number of events of every user and item.
        max_history: Events of a user's past that a sample carries at most.
        split: temporal, dates or leave_one_out.
        window_start: First day kept, UTC.
        window_end: First day no longer kept, UTC.
        title_filter: strict, paper or none.
        skip_bad_lines: Drop and count unreadable lines instead of stopping.
        seed: Seed.
        options: Further fields of DataPrepConfig.

    Returns:
        dataset: The dataset directory.
        report: The data report.
        fingerprint: Of the dataset, with the configuration that made it.
        content: Hash of its tables alone; tells whether there is anything new.
    """
    import shutil

    from latentrec.data import content_of, prepare
    from latentrec.steps.runtime import open_step

    values = {
        "reviews": reviews,
        "metadata": metadata,
        "window_start": window_start,
        "window_end": window_end or data_cutoff,
        "task": task,
        "profile": profile,
        "k_core": k_core,
        "max_history": max_history,
        "split": split,
        "title_filter": title_filter,
        "skip_bad_lines": skip_bad_lines,
        "seed": seed,
    }
    with open_step("data_prep", "data", values, options) as step:
        manifest = prepare(step.config, dataset.path, inputs_fingerprint=inputs_fingerprint)
        step.finish(dataset, manifest)
        shutil.copyfile(f"{dataset.path}/report.html", report.path)
    return (manifest.fingerprint, content_of(manifest))  # type: ignore[return-value]
