"""RecZero: preflight → data (rating task) → starting model → rating GRPO → evaluate → register."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from pipeline.builder import run_of
from pipeline.rating_steps import reinforce, starting_model
from pipeline.signatures import parameters

STEPS = ["preflight", "data_prep", "pretrain_rating", "rating_grpo", "evaluate", "register"]


@dsl.pipeline(name="reczero", description="RecZero: rating prediction by pure reinforcement learning")
@parameters(
    "reczero",
    "gpu_nodes",
    "profile",
    "rating_grpo_num_generations",
    gpu_count="1",
    gpu_type="nvidia-a100-80gb",
    pretrain_rating_backbone="Qwen/Qwen2.5-1.5B-Instruct",
)
def reczero(given: Mapping[str, Any]) -> None:
    """Train RecZero on Amazon reviews, compare it with its baselines, register it through the gate."""
    with run_of("reczero", STEPS, given) as run:
        run.preflight()
        dataset = run.data_prep().outputs["dataset"]
        with run.unless_known():
            start = starting_model(run, dataset)
            trained = reinforce(run, dataset, start)
            evaluated = run.evaluate(dataset, {"start": start, "reczero": trained})
            run.register(trained, evaluated, dataset)
