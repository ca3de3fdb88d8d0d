"""LARES: preflight → data → (popularity, SASRec, LARES-SPT → RPT) → evaluate → register."""

from kfp import dsl

from components.rpt.component import rpt
from pipeline import task_settings as placement
from pipeline.builder import run_of
from pipeline.sequential_steps import encoder, popularity, sasrec

STEPS = ["preflight", "data_prep", "popularity", "sasrec", "spt", "rpt", "evaluate", "register"]


@dsl.pipeline(
    name="lares", description="LARES: recurrent-depth latent reasoning for sequential recommendation"
)
def lares(
    reviews: str,
    metadata: str = "",
    data_cutoff: str = "",
    only_new_data: bool = False,
    k_core: int = 5,
    max_history: int = 10,
    split: str = "leave_one_out",
    window_start: str = "",
    window_end: str = "",
    title_filter: str = "none",
    skip_bad_lines: bool = False,
    lares_epochs: int = 200,
    rpt_epochs: int = 30,
    rpt_learning_rate: float = 5e-4,
    sasrec_epochs: int = 200,
    promotion_margin: float = 0.0,
    model_name: str = "lares",
    gpu_count: str = "0",
    gpu_type: str = "nvidia-l4",
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
    """Train LARES on Amazon reviews, compare it with its baselines, register it through the gate.

    Args:
        reviews: Review files: paths, gs:// or https:// locations, plain or compressed; several with commas.
        metadata: Product metadata files, like reviews; may be empty, as items are ids here.
        data_cutoff: Day or time that ends the data where window_end is empty; a schedule gives its own time.
        only_new_data: Stop after data preparation where the newest registered version had the same data.
        k_core: Least number of events of every user and item.
        max_history: Events of a user's past that a sample carries at most.
        split: temporal (8:1:1), dates or leave_one_out.
        window_start: First day kept, UTC, YYYY-MM-DD; empty for all.
        window_end: First day no longer kept, UTC, YYYY-MM-DD; empty for all.
        title_filter: strict, paper or none.
        skip_bad_lines: Drop and count unreadable lines instead of stopping.
        lares_epochs: Phase 1 (SPT), passes over the training samples at most.
        rpt_epochs: Phase 2, passes over the training samples at most.
        rpt_learning_rate: Phase 2, peak learning rate.
        sasrec_epochs: Baseline, passes over the training samples at most.
        promotion_margin: What the challenger must beat the champion by, in NDCG@10.
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
        options: Further fields of the steps' settings, {"lares": {...}, "rpt": {...}, "evaluate": {...}}.
    """
    with run_of("lares", STEPS, dict(locals())) as run:
        run.preflight()
        dataset = run.data_prep().outputs["dataset"]
        with run.unless_known():
            floor = popularity(run, dataset)
            baseline = sasrec(run, dataset, placement.TRAIN)
            spt = encoder(
                run,
                dataset,
                placement.TRAIN,
                "lares",
                epochs="lares_epochs",
                options="lares",
                name="spt",
                title="LARES SPT",
            )
            post = run.step(
                rpt(
                    dataset=dataset,
                    parent=spt.outputs["model"],
                    epochs=rpt_epochs,
                    learning_rate=rpt_learning_rate,
                    seed=seed,
                    options=run.options("rpt"),
                ),
                placement.TRAIN,
                name="rpt",
                title="LARES RPT",
            )
            judged = run.evaluate(
                dataset, {"popularity": floor, "sasrec": baseline, "lares-spt": spt, "lares": post}
            )
            run.register(post, judged, dataset)
