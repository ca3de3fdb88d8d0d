"""Door to preflight: everything that can be checked before anything costs."""

from typing import NamedTuple, Optional

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("preflight"), install_kfp_package=False)
def preflight(
    system: str,
    reviews: str,
    metadata: str = "",
    data_cutoff: str = "",
    model_name: str = "",
    options: dict = {},  # noqa: B006
    profile: Optional[str] = None,  # noqa: UP045
    k_core: Optional[int] = None,  # noqa: UP045
    max_history: Optional[int] = None,  # noqa: UP045
    split: Optional[str] = None,  # noqa: UP045
    window_start: Optional[str] = None,  # noqa: UP045
    window_end: Optional[str] = None,  # noqa: UP045
    title_filter: Optional[str] = None,  # noqa: UP045
    skip_bad_lines: Optional[bool] = None,  # noqa: UP045
    seed: Optional[int] = None,  # noqa: UP045
    backbone: Optional[str] = None,  # noqa: UP045
    reasoning_tokens: Optional[int] = None,  # noqa: UP045
    sft_epochs: Optional[int] = None,  # noqa: UP045
    sft_batch_size: Optional[int] = None,  # noqa: UP045
    sft_learning_rate: Optional[float] = None,  # noqa: UP045
    grpo_epochs: Optional[int] = None,  # noqa: UP045
    grpo_group_size: Optional[int] = None,  # noqa: UP045
    grpo_noise_std: Optional[float] = None,  # noqa: UP045
    grpo_learning_rate: Optional[float] = None,  # noqa: UP045
    sasrec_epochs: Optional[int] = None,  # noqa: UP045
    lares_epochs: Optional[int] = None,  # noqa: UP045
    rpt_epochs: Optional[int] = None,  # noqa: UP045
    rpt_learning_rate: Optional[float] = None,  # noqa: UP045
    traces: Optional[str] = None,  # noqa: UP045
    cold_start_epochs: Optional[int] = None,  # noqa: UP045
    rating_steps: Optional[int] = None,  # noqa: UP045
    rating_group_size: Optional[int] = None,  # noqa: UP045
    rating_learning_rate: Optional[float] = None,  # noqa: UP045
    eval_beam_width: Optional[str] = None,  # noqa: UP045
    eval_host: Optional[str] = None,  # noqa: UP045
    promotion_margin: Optional[float] = None,  # noqa: UP045
    train_memory: Optional[str] = None,  # noqa: UP045
    gpu_type: Optional[str] = None,  # noqa: UP045
    gpu_count: Optional[int] = None,  # noqa: UP045
) -> NamedTuple(  # type: ignore[valid-type]
    "Checked",
    [
        ("inputs_fingerprint", str),
        ("data_cutoff", str),
        ("data_options", dict),
        ("sequential_options", dict),
        ("lares_options", dict),
        ("sft_options", dict),
        ("grpo_options", dict),
        ("rpt_options", dict),
        ("cold_start_options", dict),
        ("rating_options", dict),
        ("evaluate_options", dict),
    ],
):
    """Check the run's parameters, inputs, storage, tracking, backbone and memory; open its MLflow run.

    The parameters are those of the pipelines, each documented there; a pipeline gives those that it has.

    Args:
        system: Name of the pipeline.
        reviews: Review files.
        metadata: Metadata files.
        data_cutoff: Day or time that ends the data (the schedule's time), or empty.
        model_name: Registered model.
        options: Further fields of the steps' configurations, by step.
        profile: See the pipeline.
        k_core: See the pipeline.
        max_history: See the pipeline.
        split: See the pipeline.
        window_start: See the pipeline.
        window_end: See the pipeline.
        title_filter: See the pipeline.
        skip_bad_lines: See the pipeline.
        seed: See the pipeline.
        backbone: See the pipeline.
        reasoning_tokens: See the pipeline.
        sft_epochs: See the pipeline.
        sft_batch_size: See the pipeline.
        sft_learning_rate: See the pipeline.
        grpo_epochs: See the pipeline.
        grpo_group_size: See the pipeline.
        grpo_noise_std: See the pipeline.
        grpo_learning_rate: See the pipeline.
        sasrec_epochs: See the pipeline.
        lares_epochs: See the pipeline.
        rpt_epochs: See the pipeline.
        rpt_learning_rate: See the pipeline.
        traces: See the pipeline.
        cold_start_epochs: See the pipeline.
        rating_steps: See the pipeline.
        rating_group_size: See the pipeline.
        rating_learning_rate: See the pipeline.
        eval_beam_width: See the pipeline.
        eval_host: See the pipeline.
        promotion_margin: See the pipeline.
        train_memory: See the pipeline.
        gpu_type: See the pipeline.
        gpu_count: See the pipeline.
    """
    parameters = dict(locals())
    from latentrec.tracking.doors import preflight_door

    return preflight_door(parameters)
