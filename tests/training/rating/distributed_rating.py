"""Small rating trainings as one process of a world: ``python -m`` this module, with a JSON object."""

import json
import os
import signal
import sys
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from latentrec.core import Interrupted
from latentrec.training.rating.rating_config import ColdStartConfig, RatingGRPOConfig
from latentrec.training.rating.stages import train_cold_start, train_rating_grpo
from tests.training.latentr3.first_gradients import FirstGradients, callbacks_of_trainings

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
    "cold_lora": COLD.replace(lora_rank=4),
    "grpo_lora": GRPO.replace(lora_rank=4, beta=0.1),
}
"""What is trained, by name; those with ``drawn`` draw their rollouts, the others are given them."""
SHARDED = {
    "cold": {},
    "cold_parts": {},
    "cold_lora": {"gradient_checkpointing": True},
    "grpo": {"gradient_checkpointing": True},
    "grpo_kl": {},
    "grpo_lora": {},
    "grpo_drawn": {},
}
"""Which of them are trained with sharded weights too, and what else is set then."""
RUNS |= {f"{name}_fsdp": RUNS[name].replace(sharding="fsdp", **more) for name, more in SHARDED.items()}


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


class StopAfter(TrainerCallback):
    """Sends this process the signal that a step's pod gets, after one optimizer step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def train_all(given: dict) -> None:
    """Each of ``names`` (:data:`RUNS`) from ``base``, below ``output``; first gradients below ``gradients``.

    With ``checkpoints`` they are kept there, and with ``stop`` each training is stopped after that step.
    """
    lines = Path(given["traces"]).read_text(encoding="utf-8").splitlines()
    completions = [json.loads(line)["completion"] for line in lines]
    drawn = GRPOTrainer._generate_single_turn
    for name in given["names"]:
        config = RUNS[name]
        callbacks = [FirstGradients(Path(given["output"]) / "gradients" / name)]
        callbacks += [StopAfter(given["stop"])] if "stop" in given else []

        GRPOTrainer._generate_single_turn = drawn if "drawn" in name else given_rollouts(completions)
        train, more = train_rating_grpo, {}
        if isinstance(config, ColdStartConfig):
            train, more = train_cold_start, {"traces": given["traces"]}
        output = Path(given["output"]) / name
        more["checkpoint_root"] = given.get("checkpoints")
        with suppress(Interrupted), callbacks_of_trainings(*callbacks):
            train(config, dataset=given["dataset"], model=given["base"], output=output, **more)
    GRPOTrainer._generate_single_turn = drawn
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    train_all(json.loads(sys.argv[1]))
