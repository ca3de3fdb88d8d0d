"""RecZero's reinforcement learning, and RecOne's second stage: trl's GRPO on rule-based rating rewards.

The trainer is trl's ``GRPOTrainer`` as it stands: advantage ``(R − mean) / std`` within a group of
rollouts, PPO clip, KL off, truncated completions masked out of the loss (arXiv 2510.23077, §3.3). Only
how checkpoints are stored is ours. The profile ``default`` is sized for the small stand-in on two cores,
``paper`` holds the published settings for an instruct model of 0.5–7 B.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from latentrec.core import UserError, option
from latentrec.data.dataset import Dataset
from latentrec.models.model_dir import ModelInfo
from latentrec.models.rating.text_predictor import architecture_entry, load_language_model
from latentrec.prompts.rating import STYLES, RatingPrompt
from latentrec.prompts.rating_examples import RatingTask
from latentrec.storage import ArtifactWriter, CheckpointStore, Manifest
from latentrec.training.rating_common import (
    CURVE,
    FiguresCallback,
    measure_validity,
    open_checkpoints,
    predictor_for,
    prompt_settings,
    quiet,
    scale_for,
    trainer_settings,
    training_end,
    write_rating_model,
)
from latentrec.training.rating_rewards import RatingReward, reward_functions
from latentrec.training.sink import MetricSink, NullSink

PROFILES: dict[str, dict[str, Any]] = {
    "default": {"learning_rate": 1e-3, "steps": 120, "prompts_per_step": 8, "max_completion_tokens": 64},
    "paper": {"learning_rate": 2e-6, "steps": 0, "prompts_per_step": 16, "max_completion_tokens": 1024},
}
FIGURES = {
    "reward": "reward",
    "reward_std": "reward_std",
    "rewards/format_reward/mean": "reward_format",
    "rewards/answer_reward/mean": "reward_answer",
    "format_valid": "format_valid",
    "abs_error": "abs_error",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "truncated_share",
    "frac_reward_zero_std": "groups_without_signal",
    "entropy": "entropy",
    "kl": "kl",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}


@dataclass(frozen=True, kw_only=True)
class RatingGRPOConfig:
    """Settings of the rating GRPO; fields left empty come from the profile."""

    profile: str = option("default", help="where empty fields come from", choices=tuple(PROFILES))
    backbone: str | None = option(None, help="directory or hub id to start from, where no --model is given")
    learning_rate: float | None = option(None, help="AdamW's rate; 1e-3 default, 2e-6 paper")
    steps: int | None = option(None, help="optimiser steps; 0 for --epochs; 120 default, 0 paper")
    epochs: int = option(1, help="passes over the training samples where steps is 0")
    prompts_per_step: int | None = option(None, help="prompts an optimiser step; 8 default, 16 paper")
    group_size: int = option(8, help="rollouts a prompt")
    micro_batch: int = option(0, help="completions a forward pass; 0 for all of a step at once")
    temperature: float = option(1.0, help="of the rollouts")
    beta: float = option(0.0, help="KL coefficient against the starting model; 0 keeps no reference")
    epsilon: float = option(0.2, help="PPO clip")
    loss: str = option("grpo", help="trl's loss_type", choices=("grpo", "dapo", "dr_grpo", "bnpo"))
    scale_rewards: str = option(
        "group", help="what the advantage is divided by", choices=("group", "batch", "none")
    )
    max_grad_norm: float = option(1.0, help="gradient clip")
    warmup_steps: int = option(5, help="linear warm-up, then constant")
    max_completion_tokens: int | None = option(None, help="budget of an answer; 64 default, 1024 paper")
    reward_valid: float = option(0.5, help="format reward of a valid answer")
    reward_invalid: float = option(-0.5, help="format reward of anything else")
    max_error: float = option(4.0, help="error at which the answer reward is 0")
    rating_low: float = option(1.0, help="lowest rating, for a bare backbone")
    rating_high: float = option(5.0, help="highest rating, for a bare backbone")
    prompt_style: str | None = option(
        None, help="wording; empty for the model's own", choices=(None, *STYLES)
    )
    max_prompt_tokens: int | None = option(None, help="budget of a prompt; empty for the model's own")
    max_history: int | None = option(None, help="rated items shown; empty for the model's own")
    max_review_tokens: int | None = option(None, help="tokens of each review; empty for the model's own")
    max_description_tokens: int | None = option(
        None, help="tokens of the description; empty for the model's own"
    )
    lora_rank: int = option(0, help="rank of LoRA adapters on every linear layer; 0 trains all weights")
    lora_alpha: int = option(32, help="LoRA's scale")
    gradient_checkpointing: bool = option(False, help="recompute activations in backward, for large models")
    dtype: str = option("auto", help="of the weights", choices=("auto", "float32", "bfloat16"))
    vllm: str = option(
        "off", help="rollouts by vLLM, where a GPU and vLLM are", choices=("off", "colocate", "server")
    )
    measured_prompts: int = option(
        256, help="validation prompts on which validity is measured before and after"
    )
    checkpoint_every: int = option(20, help="steps between checkpoints, with --checkpoint-root")
    seed: int = option(42, help="of sample order and rollouts")

    def __post_init__(self) -> None:
        """Fill in the profile and refuse what cannot be trained."""
        if self.profile not in PROFILES:
            raise UserError(f"profile is {self.profile!r}; allowed: {', '.join(PROFILES)}")
        for name, value in PROFILES[self.profile].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, least in (
            ("steps", 0), ("epochs", 1), ("prompts_per_step", 1), ("group_size", 2), ("micro_batch", 0),
            ("max_completion_tokens", 1), ("lora_rank", 0), ("measured_prompts", 1), ("checkpoint_every", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.learning_rate is None or self.learning_rate <= 0:
            raise UserError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.temperature <= 0:
            raise UserError(f"temperature is {self.temperature}; rollouts must differ, so it must be above 0")
        if self.micro_batch and self.completions_per_step % self.micro_batch:
            raise UserError(
                f"micro_batch is {self.micro_batch}; it must divide prompts_per_step × group_size = "
                f"{self.completions_per_step}"
            )
        _ = self.reward

    @property
    def completions_per_step(self) -> int:
        """Rollouts of one optimiser step."""
        return int(self.prompts_per_step or 0) * self.group_size

    @property
    def reward(self) -> RatingReward:
        """The reward's constants, on the configured scale."""
        return RatingReward(self.reward_valid, self.reward_invalid, self.max_error)

    @property
    def prompt_overrides(self) -> dict[str, Any]:
        """Prompt settings that were given; ``None`` where the model's own hold."""
        names = ("max_prompt_tokens", "max_history", "max_review_tokens", "max_description_tokens")
        return {"style": self.prompt_style, **{name: getattr(self, name) for name in names}}


def train_rating_grpo(
    config: RatingGRPOConfig,
    *,
    dataset: str | Path,
    output: str | Path,
    model: str | Path | None = None,
    sink: MetricSink | None = None,
    checkpoint_root: str | None = None,
) -> Manifest:
    """Train by reinforcement learning from ``model`` (pre-trained, or cold-started: then it is RecOne).

    ``model.json`` holds the figures on validation before (``start_…``) and after (``end_…``) training,
    measured the same way, and ``training_curve.json`` the curve.

    Raises:
        UserError: neither or both of ``model`` and ``config.backbone``; a dataset of another task; a
        model that
            never answers in the format, from which nothing can be learned.
        Interrupted: a signal came; the state was saved where there is a ``checkpoint_root``.
    """
    sink = sink or NullSink()
    if (model is None) == (config.backbone is None):
        raise UserError("give either --model (from pretrain-rating or cold-start-sft) or --backbone")
    data = Dataset(dataset)
    task = RatingTask(data)
    loaded = load_language_model(model if model is not None else str(config.backbone), dtype=config.dtype)
    scale = scale_for(loaded, config.rating_low, config.rating_high)
    settings = prompt_settings(loaded, config.prompt_overrides)
    prompt = RatingPrompt(loaded.tokenizer, settings, scale)
    reward = RatingReward(config.reward_valid, config.reward_invalid, config.max_error, scale)
    parent = loaded.fingerprint or config.backbone
    store = open_checkpoints(
        checkpoint_root, step="rating_grpo", config=config, dataset=data.fingerprint, parent=parent
    )
    predictor = predictor_for(loaded, prompt, int(config.max_completion_tokens or 0))
    measured = task.examples("valid", limit=config.measured_prompts, seed=config.seed)
    start = measure_validity(predictor, measured, seed=config.seed).metrics("start", reward)
    sink.log_metrics({f"grpo/{name}": value for name, value in start.items()}, 0)
    trained, curve = _train(config, task, loaded.model, prompt, reward, store, sink)
    predictor.model = trained
    end = measure_validity(predictor, measured, seed=config.seed).metrics("end", reward)
    sink.log_metrics({f"grpo/{name}": value for name, value in end.items()}, len(curve))
    cold_started = loaded.info is not None and loaded.info.stage == "cold_start_sft"
    notes = [*loaded.notes]
    if end["end_reward"] <= start["start_reward"]:
        notes.append("the validation reward did not rise: see training_curve.json")
    info = ModelInfo(
        system="recone" if cold_started else "reczero",
        stage="rating_grpo",
        config=_plain(config),
        architecture=architecture_entry(
            settings, scale, int(config.max_completion_tokens or 0), task.global_mean
        ),
        metrics={**start, **end},
        dataset_fingerprint=data.fingerprint,
        parent=loaded.fingerprint,
        train_end=training_end(data),
        notes=notes,
    )
    inputs = {"dataset": data.fingerprint, **({"model": loaded.fingerprint} if loaded.fingerprint else {})}
    with ArtifactWriter(output, "model", config, inputs) as writer:
        write_rating_model(writer, model=trained, tokenizer=loaded.tokenizer, info=info, dataset=data)
        (writer.path / CURVE).write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
        writer.counts = {"steps": len(curve), "completions": len(curve) * config.completions_per_step}
    if store is not None:
        store.clear()
    assert writer.manifest is not None
    return writer.manifest


def _train(
    config: RatingGRPOConfig,
    task: RatingTask,
    model: Any,
    prompt: RatingPrompt,
    reward: RatingReward,
    store: CheckpointStore | None,
    sink: MetricSink,
) -> tuple[Any, list[dict[str, float]]]:
    from datasets import Dataset as Rows
    from trl import GRPOConfig, GRPOTrainer

    from latentrec.training.hf_checkpoints import PickleFreeCheckpoints, train_resumable, training_order

    class RatingGRPOTrainer(PickleFreeCheckpoints, GRPOTrainer):
        pass

    examples = task.examples("train")
    per_step = int(config.prompts_per_step or 0)
    steps = config.steps or max(1, config.epochs * len(examples) // per_step)
    order = training_order(len(examples), steps, per_step, config.seed)
    shown = {int(index): prompt.as_input(prompt.render(examples[index])) for index in set(order.tolist())}
    rows = [
        {"prompt": shown[int(i)], "rating": examples[i].rating, "row": examples[i].row}
        for i in order.tolist()
    ]
    completions = config.completions_per_step
    micro_batch = config.micro_batch or completions
    callback = FiguresCallback(sink, FIGURES, prefix="grpo", description="rating GRPO")
    with tempfile.TemporaryDirectory(prefix="latentrec-rating-grpo-") as directory:
        arguments = trainer_settings(
            Path(directory), seed=config.seed, checkpoint_every=config.checkpoint_every if store else None
        )
        trainer = RatingGRPOTrainer(
            model=model,
            reward_funcs=reward_functions(reward),
            args=GRPOConfig(
                **{**arguments, "gradient_checkpointing": config.gradient_checkpointing},
                max_steps=steps,
                per_device_train_batch_size=micro_batch,
                gradient_accumulation_steps=completions // micro_batch,
                num_generations=config.group_size,
                max_completion_length=int(config.max_completion_tokens or 0),
                temperature=config.temperature,
                top_p=1.0,
                top_k=0,
                repetition_penalty=1.0,
                learning_rate=config.learning_rate,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=config.warmup_steps,
                max_grad_norm=config.max_grad_norm,
                beta=config.beta,
                epsilon=config.epsilon,
                loss_type=config.loss,
                scale_rewards=config.scale_rewards,
                mask_truncated_completions=True,
                shuffle_dataset=False,
                bf16=False,
                use_vllm=config.vllm != "off",
                **({"vllm_mode": config.vllm} if config.vllm != "off" else {}),
            ),
            train_dataset=Rows.from_list(rows),
            processing_class=prompt.tokenizer,
            callbacks=[callback],
            peft_config=_lora(config),
        )
        train_resumable(quiet(trainer), store)
        trained = trainer.accelerator.unwrap_model(trainer.model)
        return trained, callback.curve(trainer.state.log_history)


def _lora(config: RatingGRPOConfig) -> Any:
    if not config.lora_rank:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _plain(config: RatingGRPOConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config)}
