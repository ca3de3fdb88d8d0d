"""RecZero's reinforcement learning, and RecOne's second stage: trl's GRPO on rule-based rating rewards.

The trainer is trl's ``GRPOTrainer`` as it stands: advantage ``(R − mean) / std`` within a group of
rollouts, PPO clip, KL off (arXiv 2510.23077, §3.3). Only
how checkpoints are stored is ours. The profile ``default`` is sized for the small placeholder on two cores,
``paper`` holds the published settings for an instruct model of 0.5–7 B.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.storage import Manifest, check_output
from latentrec.training.common.checkpointing import Checkpoints
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger
from latentrec.training.common.sharding import FSDP
from latentrec.training.common.trainer_arguments import lora
from latentrec.training.common.trainer_compat import TextGeneration, keep_for_reference
from latentrec.training.common.world import world_size
from latentrec.training.rating.rating_config import RatingGRPOConfig
from latentrec.training.rating.rating_run import Metrics, Outcome, RatingRun
from latentrec.training.rating.rewards import RatingReward, reward_functions
from latentrec.training.rating.trainer_setup import (
    hide_means,
    train,
    trained_model,
    trainer_settings,
    training_precision,
)

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


def train_rating_grpo(
    config: RatingGRPOConfig,
    *,
    dataset: str | Path,
    output: str | Path,
    model: str | Path | None = None,
    metric_logger: MetricLogger = NO_METRICS,
    checkpoint_root: str | None = None,
) -> Manifest | None:
    """Train by reinforcement learning from ``model`` (pre-trained, or cold-started: then it is RecOne).

    ``model.json`` holds the figures on validation before (``start_…``) and after (``end_…``) training,
    measured the same way, and ``training_curve.json`` the curve. Under ``torchrun`` the processes share every
    step; ``None`` is what all but the first return.

    Raises:
        UserError: neither or both of ``model`` and ``config.backbone``; a dataset of another task.
        Interrupted: a signal came; the state was saved where there is a ``checkpoint_root``.
    """
    check_output(output, kind="model", inputs=[dataset, model])
    if config.vllm_mode != "off" and importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"vllm_mode is {config.vllm_mode!r}, but vLLM is not installed; install it, or use "
            "--vllm-mode off",
            code="config.needs_package",
        )
    config.check_world(world_size())
    run = RatingRun.open(config, dataset, model)
    prompt = run.prompt
    reward = RatingReward(config.reward_valid, config.reward_invalid, config.max_error, prompt.scale)
    cold_started = run.loaded.info is not None and run.loaded.info.stage == "cold_start_sft"

    def describe(before: Metrics, after: Metrics, steps: int) -> Outcome:
        rose = after["end_reward"] > before["start_reward"]
        notes = [] if rose else ["the validation reward did not rise: see training_curve.json"]
        counts = {"completions": steps * config.completions_per_step}
        return Outcome("recone" if cold_started else "reczero", notes, counts)

    return run.train(
        lambda checkpoints: _train(config, run, reward, checkpoints, metric_logger),
        describe,
        key=config,
        budget=int(config.max_completion_tokens or 0),
        reward=reward,
        output=output,
        metric_logger=metric_logger,
        checkpoint_root=checkpoint_root,
    )


def _train(
    config: RatingGRPOConfig,
    run: RatingRun,
    reward: RatingReward,
    checkpoints: Checkpoints,
    metric_logger: MetricLogger,
) -> tuple[Any, list[dict[str, float]]]:
    from datasets import Dataset as Rows
    from trl import GRPOConfig, GRPOTrainer

    from latentrec.training.common.batching import training_order
    from latentrec.training.common.resumable_trainer import ResumableTrainerMixin

    class RatingGRPOTrainer(ResumableTrainerMixin, TextGeneration, GRPOTrainer):
        pass

    model, prompt = run.loaded.model, run.prompt
    adapters = lora(config.lora_rank, config.lora_alpha)
    rewards: list[Any] = [*reward_functions(reward)]
    examples = hide_means(run.task.examples("train"), config.hidden_means or 0.0, config.seed)
    per_step = int(config.prompts_per_step or 0)
    steps = config.max_steps or max(1, config.num_train_epochs * len(examples) // per_step)
    order = training_order(len(examples), steps, per_step, config.seed)
    shown = {int(index): prompt.as_input(prompt.render(examples[index])) for index in set(order.tolist())}
    rows = [
        {"prompt": shown[int(i)], "rating": examples[i].rating, "row": examples[i].row}
        for i in order.tolist()
    ]
    completions = config.completions_per_step
    share = completions // world_size()
    per_device_train_batch_size = config.per_device_train_batch_size or share
    with tempfile.TemporaryDirectory(prefix="latentrec-rating-grpo-") as directory:
        arguments: dict[str, Any] = trainer_settings(
            directory, seed=config.seed, model=model, sharding=config.sharding
        )
        if config.beta and not config.lora_rank:  # with adapters the reference is the model without them
            keep_for_reference(model, Path(directory) / "reference")
            if config.sharding == FSDP:  # else trl spreads it over all devices that this process sees
                arguments["model_init_kwargs"] = {"device_map": None}
        with warnings.catch_warnings():  # trl names gradient_checkpointing as transformers no longer does
            warnings.simplefilter("ignore", FutureWarning)
            trainer = RatingGRPOTrainer(
                model=model,
                reward_funcs=rewards,
                args=GRPOConfig(
                    **{**arguments, "gradient_checkpointing": config.gradient_checkpointing},
                    max_steps=steps,
                    per_device_train_batch_size=per_device_train_batch_size,
                    gradient_accumulation_steps=share // per_device_train_batch_size,
                    num_generations=config.num_generations,
                    max_completion_length=int(config.max_completion_tokens or 0),
                    temperature=config.temperature,
                    top_p=1.0,
                    top_k=0,
                    repetition_penalty=1.0,
                    learning_rate=float(config.learning_rate or 0),
                    lr_scheduler_type="linear",
                    warmup_steps=config.warmup_steps,
                    beta=config.beta,
                    epsilon=config.ablation.epsilon,
                    loss_type=config.ablation.loss_type,
                    scale_rewards=config.ablation.scale_rewards,
                    mask_truncated_completions=config.ablation.mask_truncated_completions,
                    shuffle_dataset=False,
                    bf16=training_precision(config.dtype, config.lora_rank)[1],
                    use_vllm=config.vllm_mode != "off",
                    vllm_mode=config.vllm_mode if config.vllm_mode != "off" else "colocate",
                    vllm_server_base_url=config.vllm_server_base_url or None,
                ),
                train_dataset=Rows.from_list(rows),
                processing_class=prompt.tokenizer,
                peft_config=adapters,
            )
        curve = train(
            trainer,
            checkpoints,
            metric_logger,
            save_steps=config.save_steps,
            metric_names=FIGURES,
            label="rating GRPO",
        )
        return trained_model(trainer, run.reload, adapters), curve
