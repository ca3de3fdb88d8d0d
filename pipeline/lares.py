"""LARES: preflight → data → (popularity, SASRec, LARES-SPT → RPT) → evaluate → register."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.rpt.component import rpt
from pipeline import task_settings as placement
from pipeline.builder import run_of
from pipeline.sequential_steps import encoder, popularity, sasrec
from pipeline.signatures import parameters

STEPS = ["preflight", "data_prep", "popularity", "sasrec", "spt", "rpt", "evaluate", "register"]


@dsl.pipeline(
    name="lares", description="LARES: recurrent-depth latent reasoning for sequential recommendation"
)
@parameters(
    "lares",
    "gpu_nodes",
    "profile",
    "rpt_num_train_epochs",
    "rpt_learning_rate",
    "sasrec_num_train_epochs",
    "spt_num_train_epochs",
    data_split="leave_one_out",
    data_title_filter="none",
)
def lares(given: Mapping[str, Any]) -> None:
    """Train LARES on Amazon reviews, compare it with its baselines, register it through the gate."""
    with run_of("lares", STEPS, given) as run:
        run.preflight()
        dataset = run.data_prep().outputs["dataset"]
        with run.unless_known():
            floor = popularity(run, dataset)
            baseline = sasrec(run, dataset, placement.TRAIN)
            spt = encoder(run, dataset, placement.TRAIN, "spt", title="LARES SPT")
            post = run.step(
                rpt(dataset=dataset, parent=spt.outputs["model"], config=run.config("rpt")),
                placement.TRAIN,
                name="rpt",
                title="LARES RPT",
            )
            evaluated = run.evaluate(
                dataset, {"popularity": floor, "sasrec": baseline, "lares-spt": spt, "lares": post}
            )
            run.register(post, evaluated, dataset)
