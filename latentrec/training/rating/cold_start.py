"""RecOne's cold start: supervised fine-tuning on reasoning traces, with trl's ``SFTTrainer``.

Loss on the completions only (arXiv 2510.23077, §3.4). A trace that belongs to a sample of the dataset is
asked as this model will be asked later (its own wording and budget); only a trace without a row keeps its
own prompt.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from latentrec.core import UserError, config_to_dict
from latentrec.data.dataset import Dataset
from latentrec.models.model_directory import ModelInfo, write_curve
from latentrec.models.rating.text_predictor import architecture_entry, load_language_model
from latentrec.prompts.rating_examples import RatingTask
from latentrec.prompts.rating_prompt import RatingPrompt, RenderedPrompt
from latentrec.storage import ArtifactWriter, Manifest, check_output
from latentrec.training.common.checkpointing import Checkpoints
from latentrec.training.common.metric_logger import MetricLogger, NullMetricLogger
from latentrec.training.common.world import world_size
from latentrec.training.rating.rating_config import ColdStartConfig
from latentrec.training.rating.rewards import RatingReward
from latentrec.training.rating.trace_records import Trace, read_traces
from latentrec.training.rating.trainer_setup import (
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

DEFAULT_COMPLETION_TOKENS = 1024


def train_cold_start(
    config: ColdStartConfig,
    *,
    dataset: str | Path,
    traces: str | Path,
    output: str | Path,
    model: str | Path | None = None,
    metric_logger: MetricLogger | None = None,
    checkpoint_root: str | None = None,
) -> Manifest | None:
    """Fine-tune ``model`` on the traces of a file; ``None`` on every process of several but the first.

    Raises:
        UserError: neither or both of ``model`` and ``config.backbone``; a trace that is malformed, belongs to
            a sample outside the training split (that would teach the test), or contradicts the dataset.
        Interrupted: a signal came; the state was saved where there is a ``checkpoint_root``.
    """
    check_output(output, kind="model", inputs=[dataset, model, traces])
    metric_logger = metric_logger or NullMetricLogger()
    if (model is None) == (config.backbone is None):
        raise UserError("give either --model (from pretrain-rating) or --backbone", code="config.conflict")
    config.check_world(world_size())
    data = Dataset(dataset)
    task = RatingTask(data)
    dtype, _ = training_precision(config.dtype, config.lora_rank)
    loaded = load_language_model(model if model is not None else str(config.backbone), dtype=dtype)
    scale = scale_for(loaded, config.scale)
    records = read_traces(str(traces), scale, max_error=config.max_error)
    settings = prompt_settings(loaded, config.prompt_overrides)
    prompt = RatingPrompt(loaded.tokenizer, settings, scale)
    rows = _training_rows(records, task, prompt, str(traces))
    budget = _completion_budget(config, loaded, records)
    parent = loaded.fingerprint or config.backbone
    with open_checkpoints(
        checkpoint_root,
        step="cold_start_sft",
        config={**config_to_dict(config), "traces": _digest(records)},
        dataset=data.fingerprint,
        parent=parent,
    ) as checkpoints:
        predictor = predictor_for(loaded, prompt, budget)
        reward = RatingReward(scale=scale)
        measured = task.examples("valid", limit=config.measured_prompts, seed=config.seed)
        start = {}
        if checkpoints.main:  # the others wait at the first step
            start = measure_validity(predictor, measured, seed=config.seed).metrics("start", reward)
        metric_logger.log_metrics({f"valid/{name}": value for name, value in start.items()}, 0)
        trained, curve = _train(config, loaded.model, prompt, rows, checkpoints, metric_logger)
        if not checkpoints.main:
            return None
        predictor.model = trained
        end = measure_validity(predictor, measured, seed=config.seed).metrics("end", reward)
        metric_logger.log_metrics({f"valid/{name}": value for name, value in end.items()}, len(curve))
        sources = sorted({record.source or "unknown" for record in records})
        info = ModelInfo(
            system="recone",
            stage="cold_start_sft",
            config=config_to_dict(config),
            architecture=architecture_entry(settings, scale, budget, task.global_mean),
            metrics={**start, **end},
            dataset_fingerprint=data.fingerprint,
            parent=loaded.fingerprint,
            train_end=training_end(data),
            notes=[
                *loaded.notes,
                f"cold start on {len(records):,} reasoning traces, written by: {', '.join(sources)}",
            ],
        )
        inputs = {
            "dataset": data.fingerprint,
            **({"model": loaded.fingerprint} if loaded.fingerprint else {}),
        }
        with ArtifactWriter(output, "model", config, inputs) as writer:
            write_rating_model(writer, model=trained, tokenizer=loaded.tokenizer, info=info, dataset=data)
            write_curve(writer.path, curve)
            writer.counts = {"steps": len(curve), "traces": len(records)}
    assert writer.manifest is not None
    return writer.manifest


def _training_rows(
    traces: list[Trace], task: RatingTask, prompt: RatingPrompt, path: str
) -> list[dict[str, Any]]:
    examples = {example.row: example for example in task.examples("train")}
    rows = []
    for trace in traces:
        if trace.row < 0:
            rendered = RenderedPrompt(trace.prompt, prompt.count_tokens(trace.prompt), 0)
        elif trace.row not in examples:
            raise UserError(
                f"{path}: the trace of row {trace.row} is of no training sample of this dataset; "
                "make the traces from the dataset that you train on",
                code="traces.other_dataset",
            )
        else:
            example = examples[trace.row]
            if abs(example.rating - trace.rating) > 1e-6:
                raise UserError(
                    f"{path}: the trace of row {trace.row} says the true rating is {trace.rating:g}, "
                    f"the dataset says {example.rating:g}; make the traces from this dataset",
                    code="traces.other_dataset",
                )
            rendered = prompt.render(example)
        completion: Any = trace.completion
        if prompt.conversational:
            completion = [{"role": "assistant", "content": trace.completion}]
        rows.append({"prompt": prompt.as_input(rendered), "completion": completion})
    return rows


def _train(
    config: ColdStartConfig,
    model: Any,
    prompt: RatingPrompt,
    rows: list[dict[str, Any]],
    checkpoints: Checkpoints,
    metric_logger: MetricLogger,
) -> tuple[Any, list[dict[str, float]]]:
    from datasets import Dataset as Rows
    from datasets import disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    from latentrec.training.common.batching import training_order
    from latentrec.training.common.resumable_trainer import ResumableTrainerMixin

    class ColdStartTrainer(ResumableTrainerMixin, SFTTrainer):
        pass

    disable_progress_bars()
    steps = max(1, round(config.num_train_epochs * len(rows) / config.batch_size))
    order = training_order(len(rows), steps, config.batch_size, config.seed)
    share = config.batch_size // world_size()
    per_device_train_batch_size = config.per_device_train_batch_size or share
    names = {"loss": "loss", "mean_token_accuracy": "token_accuracy", "learning_rate": "learning_rate"}
    with tempfile.TemporaryDirectory(prefix="latentrec-cold-start-") as directory:
        arguments: dict[str, Any] = trainer_settings(Path(directory), seed=config.seed)
        trainer = ColdStartTrainer(
            model=model,
            args=SFTConfig(
                **arguments,
                max_steps=steps,
                per_device_train_batch_size=per_device_train_batch_size,
                gradient_accumulation_steps=share // per_device_train_batch_size,
                learning_rate=config.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=config.warmup_of(steps),
                completion_only_loss=True,
                max_length=None,
                packing=False,
                bf16=training_precision(config.dtype, config.lora_rank)[1],
                gradient_checkpointing=config.gradient_checkpointing,
                train_sampling_strategy="sequential",
                eos_token=prompt.tokenizer.eos_token,
            ),
            train_dataset=Rows.from_list([rows[int(index)] for index in order]),
            processing_class=prompt.tokenizer,
            peft_config=lora(config.lora_rank, config.lora_alpha),
        )
        curve = train(
            trainer,
            checkpoints,
            metric_logger,
            save_steps=config.save_steps,
            metric_names=names,
            label="cold start",
        )
        trained = trainer.accelerator.unwrap_model(trainer.model)
        return trained, curve


def _completion_budget(config: ColdStartConfig, loaded: Any, traces: list[Trace]) -> int:
    """The configured budget, else the model's own; never less than the longest trace needs."""
    longest = max(len(loaded.tokenizer(trace.completion)["input_ids"]) for trace in traces) + 1
    if config.max_completion_tokens:
        if config.max_completion_tokens < longest:
            raise UserError(
                f"max_completion_tokens is {config.max_completion_tokens}, the longest trace takes {longest}",
                code="prompt.too_long",
            )
        return config.max_completion_tokens
    own = int(loaded.info.architecture["max_new_tokens"]) if loaded.info else DEFAULT_COMPLETION_TOKENS
    return max(own, longest)


def _digest(traces: list[Trace]) -> str:
    import hashlib

    body = json.dumps([[trace.row, trace.completion, trace.rating] for trace in traces])
    return hashlib.sha256(body.encode()).hexdigest()
