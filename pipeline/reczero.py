"""RecZero: preflight → data (rating task) → starting model → rating GRPO → evaluate → register."""

from kfp import dsl

from pipeline.builder import run_of
from pipeline.rating_steps import reinforce, starting_model

STEPS = ["preflight", "data_prep", "backbone", "rating_grpo", "evaluate", "register"]


@dsl.pipeline(name="reczero", description="RecZero: rating prediction by pure reinforcement learning")
def reczero(
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
    backbone: str = "Qwen/Qwen2.5-1.5B-Instruct",
    rating_steps: int = -1,
    rating_group_size: int = 8,
    rating_learning_rate: float = 0.0,
    promotion_margin: float = 0.0,
    model_name: str = "reczero",
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
    """Train RecZero on Amazon reviews, compare it with its baselines, register it through the gate.

    Args:
        reviews: Review files: paths, gs:// or https:// locations, plain or compressed; several with commas.
        metadata: Product metadata files, like reviews; may be empty.
        data_cutoff: Day or time that ends the data where window_end is empty; a schedule gives its own time.
        only_new_data: Stop after data preparation where the newest registered version had the same data.
        profile: default, or paper for the published recipe.
        k_core: Least number of events of every user and item.
        max_history: Events of a user's past that a sample carries at most.
        split: temporal (8:1:1), dates or leave_one_out.
        window_start: First day kept, UTC, YYYY-MM-DD; empty for all.
        window_end: First day no longer kept, UTC, YYYY-MM-DD; empty for all.
        title_filter: strict, paper or none.
        skip_bad_lines: Drop and count unreadable lines instead of stopping.
        backbone: tiny pre-trains a small placeholder; else directory or hub id of an instruct model.
        rating_steps: GRPO, optimiser steps; 0 for whole passes over the samples, -1 for the profile's.
        rating_group_size: GRPO, rollouts per prompt.
        rating_learning_rate: GRPO, learning rate; 0 is the profile's.
        promotion_margin: What the challenger must beat the champion by, in mean absolute error.
        model_name: Name in the model registry.
        gpu_count: Accelerators of a training or evaluation pod, 0 or 1; 0 runs on CPU nodes.
        gpu_type: GKE accelerator type; preflight holds the model's size against its memory.
        gpu_machine_type: GKE machine type of the pool; empty is the guide's own for gpu_type.
        gpu_spot: Use spot nodes; interrupted steps resume from their checkpoint.
        gpu_node_selector: Node labels instead of those that gpu_type and gpu_spot give, as JSON.
        gpu_tolerations: Tolerations besides those of GPU and spot nodes, as a JSON list.
        resources: Sizes of all steps: default, or small for a cluster of two cores and 8 GiB.
        train_cpu: CPUs of a training pod, in Kubernetes notation; empty is what resources and pool give.
        train_memory: Memory of a training pod, in Kubernetes notation; empty likewise.
        seed: Seed of everything random.
        options: Further fields of the steps' settings, {"rating": {...}, "evaluate": {...}}.
    """
    with run_of("reczero", STEPS, dict(locals())) as run:
        run.preflight()
        dataset = run.data_prep(task="rating").outputs["dataset"]
        with run.unless_known():
            start = starting_model(run, dataset)
            trained = reinforce(run, dataset, start)
            judged = run.evaluate(dataset, {"start": start, "reczero": trained})
            run.register(trained, judged, dataset)
