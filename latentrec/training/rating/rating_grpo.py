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

from latentrec.core import UserError, config_to_dict
from latentrec.data.dataset import Dataset
from latentrec.models.model_directory import ModelInfo, write_curve
from latentrec.models.rating.text_predictor import architecture_entry, load_language_model
from latentrec.prompts.rating_examples import RatingTask
from latentrec.prompts.rating_prompt import RatingPrompt
from latentrec.storage import ArtifactWriter, Manifest, check_output
from latentrec.training.common.checkpointing import Checkpoints
from latentrec.training.common.metric_logger import MetricLogger, NullMetricLogger
from latentrec.training.common.trainer_compat import keep_for_reference
from latentrec.training.common.world import world_size
from latentrec.training.rating.rating_config import RatingGRPOConfig
from latentrec.training.rating.rewards import RatingReward, reward_functions
from latentrec.training.rating.trainer_setup import (
    hide_means,
    lora,
    measure_validity,
    open_checkpoints,
    predictor_for,
    prompt_settings,
    scale_for,
    train,
    trainer_settings,
    training_end,
    training_precision,
    write_rating_model,
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
    metric_logger: MetricLogger | None = None,
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
    metric_logger = metric_logger or NullMetricLogger()
    if config.vllm_mode != "off" and importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"vllm_mode is {config.vllm_mode!r}, but vLLM is not installed; install it, or use "
            "--vllm-mode off",
            code="config.needs_package",
        )
    if (model is None) == (config.backbone is None):
        raise UserError(
            "give either --model (from pretrain-rating or cold-start-sft) or --backbone",
            code="config.conflict",
        )
    config.check_world(world_size())
    data = Dataset(dataset)
    task = RatingTask(data)
    dtype, _ = training_precision(config.dtype, config.lora_rank)
    loaded = load_language_model(model if model is not None else str(config.backbone), dtype=dtype)
    scale = scale_for(loaded, config.scale)
    settings = prompt_settings(loaded, config.prompt_overrides)
    prompt = RatingPrompt(loaded.tokenizer, settings, scale)
    reward = RatingReward(config.reward_valid, config.reward_invalid, config.max_error, scale)
    parent = loaded.fingerprint or config.backbone
    with open_checkpoints(
        checkpoint_root, step="rating_grpo", config=config, dataset=data.fingerprint, parent=parent
    ) as checkpoints:
        predictor = predictor_for(loaded, prompt, int(config.max_completion_tokens or 0))
        measured = task.examples("valid", limit=config.measured_prompts, seed=config.seed)
        start = {}
        if checkpoints.main:  # the others wait at the first step
            start = measure_validity(predictor, measured, seed=config.seed).metrics("start", reward)
        metric_logger.log_metrics({f"valid/{name}": value for name, value in start.items()}, 0)
        trained, curve = _train(config, task, loaded.model, prompt, reward, checkpoints, metric_logger)
        if not checkpoints.main:
            return None
        predictor.model = trained
        end = measure_validity(predictor, measured, seed=config.seed).metrics("end", reward)
        metric_logger.log_metrics({f"valid/{name}": value for name, value in end.items()}, len(curve))
        cold_started = loaded.info is not None and loaded.info.stage == "cold_start_sft"
        notes = [*loaded.notes]
        if end["end_reward"] <= start["start_reward"]:
            notes.append("the validation reward did not rise: see training_curve.json")
        info = ModelInfo(
            system="recone" if cold_started else "reczero",
            stage="rating_grpo",
            config=config_to_dict(config),
            architecture=architecture_entry(
                settings, scale, int(config.max_completion_tokens or 0), task.global_mean
            ),
            metrics={**start, **end},
            dataset_fingerprint=data.fingerprint,
            parent=loaded.fingerprint,
            train_end=training_end(data),
            notes=notes,
        )
        inputs = {
            "dataset": data.fingerprint,
            **({"model": loaded.fingerprint} if loaded.fingerprint else {}),
        }
        with ArtifactWriter(output, "model", config, inputs) as writer:
            write_rating_model(writer, model=trained, tokenizer=loaded.tokenizer, info=info, dataset=data)
            write_curve(writer.path, curve)
            writer.counts = {"steps": len(curve), "completions": len(curve) * config.completions_per_step}
    assert writer.manifest is not None
    return writer.manifest


def _train(
    config: RatingGRPOConfig,
    task: RatingTask,
    model: Any,
    prompt: RatingPrompt,
    reward: RatingReward,
    checkpoints: Checkpoints,
    metric_logger: MetricLogger,
) -> tuple[Any, list[dict[str, float]]]:
    from datasets import Dataset as Rows
    from trl import GRPOConfig, GRPOTrainer

    from latentrec.training.common.batching import training_order
    from latentrec.training.common.resumable_trainer import ResumableTrainerMixin

    class RatingGRPOTrainer(ResumableTrainerMixin, GRPOTrainer):
        pass

    rewards: list[Any] = [*reward_functions(reward)]
    examples = hide_means(task.examples("train"), config.hidden_means or 0.0, config.seed)
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
        arguments: dict[str, Any] = trainer_settings(Path(directory), seed=config.seed)
        if config.beta and not config.lora_rank:  # with adapters the reference is the model without them
            keep_for_reference(model, Path(directory) / "reference")
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
                peft_config=lora(config.lora_rank, config.lora_alpha),
            )
        curve = train(
            trainer,
            checkpoints,
            metric_logger,
            save_steps=config.save_steps,
            metric_names=FIGURES,
            label="rating GRPO",
        )
        trained = trainer.accelerator.unwrap_model(trainer.model)
        return trained, curve
