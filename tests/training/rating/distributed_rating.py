"""Small rating trainings as one process of a world: ``python -m`` this module, with a JSON object."""

import json
import sys
from pathlib import Path

import torch

from latentrec.training.rating.rating_config import ColdStartConfig, RatingGRPOConfig
from latentrec.training.rating.stages import train_cold_start, train_rating_grpo

COLD = ColdStartConfig(num_train_epochs=2, batch_size=8, max_traces=16, measured_prompts=4, save_steps=50)
GRPO = RatingGRPOConfig(
    steps=2,
    prompts_per_step=4,
    num_generations=4,
    max_completion_tokens=8,
    measured_prompts=4,
    warmup_steps=1,
    save_steps=50,
)


def train_both(given: dict) -> None:
    """Cold start from ``base``, then GRPO from ``base``, below ``output``."""
    for name, train, config, more in (
        ("cold", train_cold_start, COLD, {"traces": given["traces"]}),
        ("grpo", train_rating_grpo, GRPO, {}),
    ):
        output = Path(given["output"]) / name
        train(config, dataset=given["dataset"], model=given["base"], output=output, **more)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    train_both(json.loads(sys.argv[1]))
