"""LatentR3: preflight → data → (popularity, SASRec, backbone, SFT → GRPO) → evaluate → register."""

from typing import Any

from kfp import dsl

from components.grpo.component import grpo
from components.sft.component import sft
from pipeline import task_settings as placement
from pipeline.builder import run_of
from pipeline.sequential_steps import popularity, sasrec

STEPS = [
    "preflight",
    "data_prep",
    "popularity",
    "sasrec",
    "backbone",
    "sft",
    "grpo",
    "evaluate",
    "register",
]


@dsl.pipeline(name="latentr3", description="LatentR3: latent reasoning for recommendation, by SFT and GRPO")
def latentr3(
    reviews: str,
    metadata: str = "",
    data_cutoff: str = "",
    only_new_data: bool = False,
    profile: str = "default",
    k_core: int = 5,
    max_history: int = 10,
    split: str = "temporal",
    window_start: str = "",
    window_end: str = "",
    title_filter: str = "strict",
    skip_bad_lines: bool = False,
    backbone: str = "Qwen/Qwen2.5-1.5B",
    reasoning_tokens: int = 1,
    warm_start: bool = False,
    sft_epochs: int = 3,
    sft_batch_size: int = 128,
    sft_learning_rate: float = 0.0,
    grpo_epochs: float = 1.0,
    grpo_group_size: int = 8,
    grpo_noise_std: float = 0.0,
    grpo_learning_rate: float = 0.0,
    sasrec_epochs: int = 200,
    eval_beam_width: str = "10",
    eval_decoding: str = "d3-catalogue",
    promotion_margin: float = 0.0,
    model_name: str = "latentr3",
    gpu_count: str = "1",
    gpu_type: str = "nvidia-a100-80gb",
    gpu_machine_type: str = "",
    gpu_spot: bool = False,
    gpu_node_selector: dict = {},  # noqa: B006
    gpu_tolerations: list = [],  # noqa: B006
    resources: str = "default",
    train_cpu: str = "",
    train_memory: str = "",
    seed: int = 42,
    options: dict = {},  # noqa: B006
) -> None:
    """Train LatentR3 on Amazon reviews, compare it with its baselines, register it through the gate.

    Args:
        reviews: Review files: paths, gs:// or https:// locations, plain or compressed; several with commas.
        metadata: Product metadata files, like reviews; titles come from here.
        data_cutoff: Day or time that ends the data where window_end is empty; a schedule gives its own time.
        only_new_data: Stop after data preparation where the newest registered version had the same data.
        profile: default, or paper for the published recipe of data, SFT and GRPO.
        k_core: Least number of events of every user and item.
        max_history: Events of a user's past that a sample carries at most.
        split: temporal (8:1:1), dates or leave_one_out.
        window_start: First day kept, UTC, YYYY-MM-DD; empty for all.
        window_end: First day no longer kept, UTC, YYYY-MM-DD; empty for all.
        title_filter: strict, paper or none.
        skip_bad_lines: Drop and count unreadable lines instead of stopping.
        backbone: Preset (tiny), hub id, directory or gs:// location of a causal language model.
        reasoning_tokens: N, latent reasoning tokens.
        warm_start: Begin stage 1 at the champion, where there is one, instead of at the backbone.
        sft_epochs: Stage 1, passes over the training samples.
        sft_batch_size: Stage 1, samples per optimiser step.
        sft_learning_rate: Stage 1, peak learning rate; 0 is the one that suits backbone and profile.
        grpo_epochs: Stage 2, passes over the training samples.
        grpo_group_size: Stage 2, K copies of a prompt where its latents are noised (options estimator).
        grpo_noise_std: Stage 2, standard deviation of the noise on latents, if any; 0 is the default.
        grpo_learning_rate: Stage 2, peak learning rate; 0 is the profile's.
        sasrec_epochs: Baseline, passes over the training samples at most.
        eval_beam_width: Beams of the title models, or exact.
        eval_decoding: Score of a title: d3-catalogue (mixed with SASRec), catalogue, bigrec, d3.
        promotion_margin: What the challenger must beat the champion by, in NDCG@10.
        model_name: Name in the model registry.
        gpu_count: Accelerators of a training pod, one process each (evaluation takes one); 0 is CPU nodes.
        gpu_type: GKE accelerator type; preflight holds the model's size against its memory.
        gpu_machine_type: GKE machine type of the pool; empty is the guide's own for gpu_type.
        gpu_spot: Use spot nodes; interrupted steps resume from their checkpoint.
        gpu_node_selector: Node labels instead of those that gpu_type and gpu_spot give, as JSON.
        gpu_tolerations: Tolerations besides those of GPU and spot nodes, as a JSON list.
        resources: Sizes of all steps: default, or small for a cluster of two cores and 8 GiB.
        train_cpu: CPUs of a training pod, in Kubernetes notation; empty is what resources and pool give.
        train_memory: Memory of a training pod, in Kubernetes notation; empty likewise.
        seed: Seed of everything random.
        options: Further fields of the steps' settings, {"sft": {...}, "grpo": {...}, "evaluate": {...}}.
    """
    with run_of("latentr3", STEPS, dict(locals())) as run:
        run.preflight()
        dataset = run.data_prep().outputs["dataset"]
        with run.unless_known():
            floor = popularity(run, dataset)
            baseline = sasrec(run, dataset, placement.TRAIN_CPU)

            def tune(tokens: int, name: str, title: str, start_from: Any = "") -> dsl.PipelineTask:
                task = sft(
                    dataset=dataset,
                    backbone=backbone,
                    reasoning_tokens=tokens,
                    profile=profile,
                    epochs=sft_epochs,
                    batch_size=sft_batch_size,
                    learning_rate=sft_learning_rate,
                    start_from=start_from,
                    seed=seed,
                    options=run.options("sft"),
                )
                return run.step(task, placement.TRAIN, name=name, title=title)

            plain = tune(0, "backbone", "Backbone (N = 0)")
            stage_1 = tune(reasoning_tokens, "sft", "LatentR3 SFT", start_from=run.champion())
            stage_2 = run.step(
                grpo(
                    dataset=dataset,
                    parent=stage_1.outputs["model"],
                    profile=profile,
                    epochs=grpo_epochs,
                    group_size=grpo_group_size,
                    noise_std=grpo_noise_std,
                    learning_rate=grpo_learning_rate,
                    seed=seed,
                    options=run.options("grpo"),
                ),
                placement.TRAIN,
                name="grpo",
                title="LatentR3 GRPO",
            )
            tasks = {
                "popularity": floor,
                "sasrec": baseline,
                "backbone": plain,
                "latentr3-sft": stage_1,
                "latentr3-grpo": stage_2,
            }
            judged = run.evaluate(dataset, tasks, beam_width=eval_beam_width, decoding=eval_decoding)
            run.register(stage_2, judged, dataset, assistant=baseline)
