"""Component: preflight: everything that can be checked before anything costs."""

from typing import NamedTuple

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("preflight"), install_kfp_package=False)
def preflight(
    system: str,
    customer_reviews: str,
    decided: dsl.Output[dsl.Markdown],
    data_cutoff: str = "",
    data_k_core: int = 5,
    data_max_history: int = 10,
    data_metadata: str = "",
    data_only_new: bool = False,
    data_skip_bad_lines: bool = False,
    data_split: str = "temporal",
    data_title_filter: str = "strict",
    data_window_end: str = "",
    data_window_start: str = "",
    eval_beam_width: str = "10",
    eval_decoding: str = "d3-catalogue",
    eval_promotion_margin: float = 0.0,
    gpu_count: str = "0",
    gpu_machine_type: str = "",
    gpu_node_selector: dict = {},  # noqa: B006
    gpu_nodes: int = 1,
    gpu_spot: bool = False,
    gpu_tolerations: list = [],  # noqa: B006
    gpu_type: str = "nvidia-l4",
    pretrain_rating_backbone: str = "tiny",
    profile: str = "default",
    rating_grpo_num_generations: int = 8,
    registry_floor: str = "strongest",
    registry_model_name: str = "",
    resources: str = "default",
    rpt_num_train_epochs: int = 30,
    rpt_learning_rate: float = 0.0005,
    sasrec_num_train_epochs: int = 200,
    scheduled_time: str = "",
    seed: int = 42,
    settings: dict = {},  # noqa: B006
    sft_backbone: str = "tiny",
    sft_batch_size: int = 128,
    sft_num_train_epochs: int = 3,
    sft_reasoning_tokens: int = 1,
    sft_warm_start: bool = False,
    spt_num_train_epochs: int = 200,
    stage_2: str = "profile",
    traces_endpoint: str = "template",
    train_cpu: str = "",
    train_memory: str = "",
) -> NamedTuple(  # type: ignore[valid-type]
    "Checked",
    [
        ("inputs_fingerprint", str),
        ("known_content", str),
        ("start_from", str),
        ("stage_2", str),
        ("node_selector", dict),
        ("tolerations", list),
        ("one_gpu", str),
        ("trainer_cpu", str),
        ("trainer_memory", str),
        ("trainer_gpus", str),
        ("trainer_node_selector", dict),
        ("trainer_tolerations", list),
        ("data_cpu", str),
        ("data_memory", str),
        ("train_cpu", str),
        ("train_memory", str),
        ("traces_cpu", str),
        ("traces_memory", str),
        ("register_cpu", str),
        ("register_memory", str),
        ("stage_2_config", dict),
        ("data_prep_config", dict),
        ("popularity_config", dict),
        ("sasrec_config", dict),
        ("spt_config", dict),
        ("rpt_config", dict),
        ("backbone_config", dict),
        ("sft_config", dict),
        ("pretrain_rating_config", dict),
        ("traces_config", dict),
        ("cold_start_sft_config", dict),
        ("rating_grpo_config", dict),
        ("evaluate_config", dict),
    ],
):
    """Check the run's parameters, inputs, storage, tracking, backbone and memory; open its MLflow run.

    A pipeline gives those parameters that it has; the others are ignored.

    Args:
        system: Name of the pipeline.
        customer_reviews: review files: paths, folders, gs:// or https:// locations; JSON lines or CSV
            (plain, gzip or zstd), or Parquet
        data_cutoff: Day or time that ends the data where data_window_end is empty; scheduled: when
            the run was to start, which schedules use
        data_k_core: repeat until every user and every item has at least so many events
        data_max_history: earlier events of the user in a sample, at most
        data_metadata: product metadata files, like --reviews; may be absent
        data_only_new: Stop after data preparation where the newest registered version had the same
            data
        data_skip_bad_lines: drop and count lines that cannot be read instead of stopping
        data_split: 'temporal' 8:1:1 over samples by time; 'dates' at valid_start and test_start;
            'leave_one_out' each user's last two
        data_title_filter: 'strict' drops items without title or with HTML in it, 'paper' those with
            '<span id' or more than 20 words, 'none' keeps all
        data_window_end: first day no longer kept, UTC, YYYY-MM-DD
        data_window_start: first day kept, UTC, YYYY-MM-DD
        eval_beam_width: beams of the title models; 'exact' scores every title (small catalogues only)
        eval_decoding: score of a title: catalogue, its log-probability among the catalogue's titles;
            bigrec, its mean log-probability a token, as published; d3, mixed with an assistant's;
            d3-catalogue, both
        eval_promotion_margin: the challenger must beat the champion by more than this, in units of
            the metric
        gpu_count: Accelerators of a training pod, one process each; 0 is CPU nodes
        gpu_machine_type: GKE machine type of the pool; empty is the guide's own for gpu_type
        gpu_node_selector: Node labels instead of those that gpu_type and gpu_spot give, as JSON
        gpu_nodes: Nodes of a training step, each with gpu_count accelerators; above 1 a TrainJob of
            Kubeflow Trainer runs it
        gpu_spot: Use spot nodes; interrupted steps resume from a checkpoint
        gpu_tolerations: Tolerations besides those of GPU and spot nodes, as a JSON list
        gpu_type: GKE accelerator type; preflight checks its memory
        pretrain_rating_backbone: 'tiny' pre-trains the placeholder; a directory or hub id is passed
            on as is
        profile: What fields left alone become in every step; paper is the published recipe
        rating_grpo_num_generations: rollouts a prompt
        registry_floor: baselines that the challenger must not be below: strongest, any of the run;
            popularity, only popularity (ratings: the constants and biases)
        registry_model_name: Name in the model registry; empty: system and dataset
            (latentr3-gift-cards), so that every shop has champions of its own
        resources: Sizes of all steps; small is for a cluster of two cores and 8 GiB
        rpt_learning_rate: peak learning rate of Adam
        rpt_num_train_epochs: upper bound of epochs
        sasrec_num_train_epochs: upper bound of epochs
        scheduled_time: When KFP was to start the run; the data ends there with data_cutoff=scheduled
        seed: Seed of everything random, in every step
        settings: Any field of any step, as {"sft.learning_rate": 1e-4, "evaluate.max_users": 2000}
        sft_backbone: preset (micro, tiny, small, medium, large), directory, gs://, hub id
        sft_batch_size: samples of an optimizer step, over all processes and accumulation
        sft_num_train_epochs: passes over the training split; early stopping may end sooner
        sft_reasoning_tokens: N, latent tokens before the answer; 0 is the backbone alone
        sft_warm_start: Begin stage 1 at the champion, where there is one, instead of at the backbone
        spt_num_train_epochs: upper bound of epochs
        stage_2: Stage 2: title_objective, grpo (on the latent), or as the profile says:
            title_objective by default, grpo for paper
        traces_endpoint: base URL of an OpenAI-compatible service, or 'template'
        train_cpu: CPUs of a training pod, in Kubernetes notation; empty is what resources and pool
            give
        train_memory: Memory of a training pod, in Kubernetes notation; empty: likewise

    Returns:
        decided: Sizes, nodes, model name and settings of the run; warnings of the installation.
        inputs_fingerprint: Changes when the content behind the input locations does.
        known_content: Content of the dataset behind the newest registered version, or empty: train anyhow.
        start_from: Registered version that training begins at, or empty.
        stage_2: What LatentR3's stage 2 runs: title_objective or grpo.
        node_selector: Node labels of the GPU steps' pool.
        tolerations: Tolerations of the GPU steps' pool.
        one_gpu: Accelerators of a GPU step that can use one at most.
        trainer_cpu: CPUs of a training step's pod that can share its work, in Kubernetes notation.
        trainer_memory: Memory of it, in Kubernetes notation.
        trainer_gpus: Accelerators of it; none where it follows a TrainJob of several nodes.
        trainer_node_selector: Node labels of it.
        trainer_tolerations: Tolerations of it.
        data_cpu: CPUs of data preparation, in Kubernetes notation.
        data_memory: Memory of data preparation, in Kubernetes notation.
        train_cpu: CPUs of training and evaluation, in Kubernetes notation.
        train_memory: Memory of training and evaluation, in Kubernetes notation.
        traces_cpu: CPUs of the traces, in Kubernetes notation.
        traces_memory: Memory of the traces, in Kubernetes notation.
        register_cpu: CPUs of registration, in Kubernetes notation.
        register_memory: Memory of registration, in Kubernetes notation.
        stage_2_config: What is set of the configuration of stage_2, checked.
        data_prep_config: What is set of the configuration of data_prep, checked.
        popularity_config: What is set of the configuration of popularity, checked.
        sasrec_config: What is set of the configuration of sasrec, checked.
        spt_config: What is set of the configuration of spt, checked.
        rpt_config: What is set of the configuration of rpt, checked.
        backbone_config: What is set of the configuration of backbone, checked.
        sft_config: What is set of the configuration of sft, checked.
        pretrain_rating_config: What is set of the configuration of pretrain_rating, checked.
        traces_config: What is set of the configuration of traces, checked.
        cold_start_sft_config: What is set of the configuration of cold_start_sft, checked.
        rating_grpo_config: What is set of the configuration of rating_grpo, checked.
        evaluate_config: What is set of the configuration of evaluate, checked.
    """
    parameters = dict(locals())
    page = parameters.pop("decided")
    from latentrec.steps.runtime import run_preflight_step

    return run_preflight_step(parameters, page)
