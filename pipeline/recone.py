"""RecOne: as RecZero, with a supervised cold start on reasoning traces before the reinforcement learning."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.cold_start_sft.component import cold_start_sft
from components.traces.component import traces
from pipeline import task_settings as placement
from pipeline.builder import run_of
from pipeline.rating_steps import reinforce, starting_model
from pipeline.signatures import parameters

STEPS = [
    "preflight",
    "data_prep",
    "pretrain_rating",
    "traces",
    "cold_start_sft",
    "rating_grpo",
    "evaluate",
    "register",
]


@dsl.pipeline(name="recone", description="RecOne: rating prediction by a cold start on traces, then GRPO")
@parameters(
    "recone",
    "gpu_nodes",
    "profile",
    "rating_grpo_num_generations",
    "traces_endpoint",
    gpu_count="1",
    gpu_type="nvidia-a100-80gb",
    pretrain_rating_backbone="Qwen/Qwen2.5-1.5B-Instruct",
)
def recone(given: Mapping[str, Any]) -> None:
    """Train RecOne on Amazon reviews, compare it with its baselines, register it through the gate."""
    with run_of("recone", STEPS, given) as run:
        run.preflight()
        dataset = run.data_prep().outputs["dataset"]
        with run.unless_known():
            start = starting_model(run, dataset)
            written = run.step(
                traces(dataset=dataset, config=run.config("traces")),
                placement.TRACES,
                name="traces",
                title="Reasoning traces",
            )
            cold = run.step(
                cold_start_sft(
                    dataset=dataset,
                    parent=start.outputs["model"],
                    traces=written.outputs["records"],
                    config=run.config("cold_start_sft"),
                ),
                placement.TRAIN,
                name="cold_start_sft",
                title="Cold start",
            )
            trained = reinforce(run, dataset, cold)
            evaluated = run.evaluate(dataset, {"start": start, "cold-start": cold, "recone": trained})
            run.register(trained, evaluated, dataset)
