"""Component: preflight: everything that can be checked before anything costs."""

from typing import NamedTuple

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("preflight"), install_kfp_package=False)
def preflight(
    system: str,
    reviews: str,
    metadata: str = "",
    data_cutoff: str = "",
    numbers: str = "",
    profile: str = "",
    split: str = "",
    window_start: str = "",
    window_end: str = "",
    title_filter: str = "",
    backbone: str = "",
    endpoint: str = "",
    eval_beam_width: str = "",
    eval_decoding: str = "",
    train_memory: str = "",
    gpu_type: str = "",
    gpu_node_selector: dict = {},  # noqa: B006
    gpu_tolerations: list = [],  # noqa: B006
    model_name: str = "",
    options: dict = {},  # noqa: B006
) -> NamedTuple(  # type: ignore[valid-type]
    "Checked",
    [
        ("inputs_fingerprint", str),
        ("data_cutoff", str),
        ("known_content", str),
        ("start_from", str),
        ("node_selector", dict),
        ("tolerations", list),
        ("one_gpu", str),
        ("data_cpu", str),
        ("data_memory", str),
        ("train_cpu", str),
        ("train_memory", str),
        ("traces_cpu", str),
        ("traces_memory", str),
        ("register_cpu", str),
        ("register_memory", str),
        ("data_options", dict),
        ("sequential_options", dict),
        ("lares_options", dict),
        ("sft_options", dict),
        ("grpo_options", dict),
        ("rpt_options", dict),
        ("pretrain_options", dict),
        ("traces_options", dict),
        ("cold_start_options", dict),
        ("rating_options", dict),
        ("evaluate_options", dict),
    ],
):
    """Check the run's parameters, inputs, storage, tracking, backbone and memory; open its MLflow run.

    Its inputs are parameters of the pipelines, each documented there; a pipeline gives those that it has.

    Args:
        system: Name of the pipeline.
        reviews: Review files.
        metadata: Metadata files.
        data_cutoff: Day or time that ends the data (the schedule's time), or empty.
        numbers: The pipeline's numbers and switches, "k_core=5 seed=42 ...".
        profile: Profile of data and GRPO.
        split: Kind of split.
        window_start: First day kept.
        window_end: First day no longer kept.
        title_filter: Which titles are dropped.
        backbone: Language model.
        endpoint: Who writes RecOne's reasoning traces.
        eval_beam_width: Beams of the title models.
        eval_decoding: Decoding of the title models.
        train_memory: Memory of a training pod.
        gpu_type: Accelerator of a training pod.
        gpu_node_selector: Node labels instead of the accelerator's.
        gpu_tolerations: Further tolerations.
        model_name: Registered model.
        options: Further fields of the steps' settings, by step.

    Returns:
        inputs_fingerprint: Changes when the content behind the input locations does.
        data_cutoff: Day that ends the data, or empty.
        known_content: Content of the dataset behind the newest registered version, or empty: train anyhow.
        start_from: Registered version that training begins at, or empty.
        node_selector: Node labels of the GPU steps' pool.
        tolerations: Tolerations of the GPU steps' pool.
        one_gpu: Accelerators of a GPU step that can use one at most.
        data_cpu: CPUs of data preparation, in Kubernetes notation.
        data_memory: Memory of data preparation, in Kubernetes notation.
        train_cpu: CPUs of training and evaluation, in Kubernetes notation.
        train_memory: Memory of training and evaluation, in Kubernetes notation.
        traces_cpu: CPUs of the traces, in Kubernetes notation.
        traces_memory: Memory of the traces, in Kubernetes notation.
        register_cpu: CPUs of registration, in Kubernetes notation.
        register_memory: Memory of registration, in Kubernetes notation.
        data_options: Further settings of data preparation, checked.
        sequential_options: Further settings of the ID-based baselines, checked.
        lares_options: Further settings of LARES, checked.
        sft_options: Further settings of SFT, checked.
        grpo_options: Further settings of GRPO, checked.
        rpt_options: Further settings of RPT, checked.
        pretrain_options: Further settings of the rating systems' starting model, checked.
        traces_options: Further settings of the traces, checked.
        cold_start_options: Further settings of the cold start, checked.
        rating_options: Further settings of rating GRPO, checked.
        evaluate_options: Further settings of the evaluation, checked.
    """
    parameters = dict(locals())
    from latentrec.steps.runtime import run_preflight_step

    return run_preflight_step(parameters)
