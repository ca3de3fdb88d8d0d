"""Small rating trainings as one process of a world: ``python -m`` this module, with a JSON object."""

import json
import sys
import zlib
from collections import Counter
from pathlib import Path

import torch
from trl import GRPOTrainer

from latentrec.training.rating.rating_config import ColdStartConfig, RatingGRPOConfig
from latentrec.training.rating.stages import train_cold_start, train_rating_grpo

COLD = ColdStartConfig(num_train_epochs=2, batch_size=8, measured_prompts=4, save_steps=50)
GRPO = RatingGRPOConfig(
    max_steps=3,
    prompts_per_step=4,
    num_generations=4,
    max_completion_tokens=96,
    measured_prompts=4,
    warmup_steps=1,
    save_steps=50,
)
RUNS = {
    "cold": COLD,
    "cold_parts": COLD.replace(per_device_train_batch_size=2),
    "grpo": GRPO,
    "grpo_parts": GRPO.replace(per_device_train_batch_size=4),
    "grpo_kl": GRPO.replace(beta=0.1),
    "grpo_spread": GRPO.replace(prompts_per_step=3, num_generations=6),  # a group on both processes
    "grpo_drawn": GRPO,
}
"""What is trained, by name; ``grpo_drawn`` draws its rollouts, the others are given them."""


def given_rollouts(completions: list[str]):
    """Rollouts that depend on prompt and step alone, not on the process that asks: valid, wrong, cut off."""

    def generate(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        tokenizer = self.processing_class
        seen: Counter = Counter()
        skipped = offset_of_group(self, prompt_ids, num_generations)
        rows = []
        for ids in prompt_ids:
            key = tuple(ids)
            ordinal = seen[key] + (skipped if key == tuple(prompt_ids[0]) else 0)
            seen[key] += 1
            draw = zlib.crc32(repr((key, ordinal, self.state.global_step)).encode())
            tokens = tokenizer(completions[draw % len(completions)])["input_ids"]
            rows.append(tokens[: len(tokens) // 2] if draw % 3 == 0 else [*tokens, tokenizer.eos_token_id])
        return rows, None

    return generate


def offset_of_group(trainer, prompt_ids, num_generations: int) -> int:
    """How many rollouts of this process's first prompt stand on the processes before it."""
    first = trainer.accelerator.process_index * len(prompt_ids)
    return first % num_generations


def train_all(given: dict) -> None:
    """Each of :data:`RUNS` from ``base``, below ``output``."""
    lines = Path(given["traces"]).read_text(encoding="utf-8").splitlines()
    completions = [json.loads(line)["completion"] for line in lines]
    drawn = GRPOTrainer._generate_single_turn
    for name, config in RUNS.items():
        GRPOTrainer._generate_single_turn = drawn if name == "grpo_drawn" else given_rollouts(completions)
        train, more = train_rating_grpo, {}
        if isinstance(config, ColdStartConfig):
            train, more = train_cold_start, {"traces": given["traces"]}
        output = Path(given["output"]) / name
        train(config, dataset=given["dataset"], model=given["base"], output=output, **more)
    GRPOTrainer._generate_single_turn = drawn
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    train_all(json.loads(sys.argv[1]))
