"""LatentR3: preflight → data → (popularity, SASRec, backbone, SFT → stage 2) → evaluate → register."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.sft.component import sft
from components.stage_2.component import stage_2
from pipeline import task_settings as placement
from pipeline.builder import run_of
from pipeline.sequential_steps import popularity, sasrec
from pipeline.signatures import parameters

STEPS = [
    "preflight",
    "data_prep",
    "popularity",
    "sasrec",
    "backbone",
    "sft",
    "stage_2",
    "evaluate",
    "register",
]


@dsl.pipeline(name="latentr3", description="LatentR3: latent reasoning for recommendation, by SFT and GRPO")
@parameters(
    "latentr3",
    "gpu_nodes",
    "eval_beam_width",
    "eval_decoding",
    "profile",
    "sasrec_num_train_epochs",
    "sft_batch_size",
    "sft_num_train_epochs",
    "sft_reasoning_tokens",
    "sft_warm_start",
    "stage_2",
    gpu_count="1",
    gpu_type="nvidia-a100-80gb",
    sft_backbone="Qwen/Qwen2.5-1.5B",
)
def latentr3(given: Mapping[str, Any]) -> None:
    """Train LatentR3 on Amazon reviews, compare it with its baselines, register it through the gate."""
    with run_of("latentr3", STEPS, given) as run:
        run.preflight()
        dataset = run.data_prep().outputs["dataset"]
        with run.unless_known():
            floor = popularity(run, dataset)
            baseline = sasrec(run, dataset, placement.TRAIN_CPU)
            plain = run.step(
                sft(dataset=dataset, config=run.config("backbone")),
                placement.TRAIN,
                name="backbone",
                title="Backbone (N = 0)",
            )
            stage_1 = run.step(
                sft(dataset=dataset, start_from=run.champion(), config=run.config("sft")),
                placement.TRAIN,
                name="sft",
                title="LatentR3 SFT",
            )
            refined = run.step(
                stage_2(
                    dataset=dataset,
                    parent=stage_1.outputs["model"],
                    objective=run.stage_2(),
                    config=run.config("stage_2"),
                ),
                placement.TRAIN,
                name="stage_2",
                title="LatentR3 stage 2",
            )
            tasks = {
                "popularity": floor,
                "sasrec": baseline,
                "backbone": plain,
                "latentr3-sft": stage_1,
                "latentr3-stage-2": refined,
            }
            evaluated = run.evaluate(dataset, tasks)
            run.register(refined, evaluated, dataset, assistant=baseline)
