"""RecOne's cold start: supervised fine-tuning on reasoning traces, with trl's ``SFTTrainer``.

Loss on the completions only (arXiv 2510.23077, §3.4). A trace that belongs to a sample of the dataset is
asked as this model will be asked later (its own wording and budget); only a trace without a row keeps its
own prompt.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.prompts.rating_examples import RatingTask
from latentrec.prompts.rating_prompt import RatingPrompt, RenderedPrompt
from latentrec.storage import Manifest, check_output
from latentrec.training.common.checkpointing import Checkpoints
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger
from latentrec.training.common.trainer_arguments import lora
from latentrec.training.common.world import world_size
from latentrec.training.rating.rating_config import ColdStartConfig
from latentrec.training.rating.rating_run import Outcome, RatingRun
from latentrec.training.rating.rewards import RatingReward
from latentrec.training.rating.trace_records import Trace, read_traces
from latentrec.training.rating.trainer_setup import train, trained_model, trainer_settings, training_precision

DEFAULT_COMPLETION_TOKENS = 1024


def train_cold_start(
    config: ColdStartConfig,
    *,
    dataset: str | Path,
    traces: str | Path,
    output: str | Path,
    model: str | Path | None = None,
    metric_logger: MetricLogger = NO_METRICS,
    checkpoint_root: str | None = None,
) -> Manifest | None:
    """Fine-tune ``model`` on the traces of a file; ``None`` on every process of several but the first.

    Raises:
        UserError: neither or both of ``model`` and ``config.backbone``; a trace that is malformed, belongs to
            a sample outside the training split (that would teach the test), or contradicts the dataset.
        Interrupted: a signal came; the state was saved where there is a ``checkpoint_root``.
    """
    check_output(output, kind="model", inputs=[dataset, model, traces])
    config.check_world(world_size())
    run = RatingRun.open(config, dataset, model)
    prompt = run.prompt
    records = read_traces(str(traces), prompt.scale, max_error=config.max_error)
    rows = _training_rows(records, run.task, prompt, str(traces))
    sources = sorted({record.source or "unknown" for record in records})
    note = f"cold start on {len(records):,} reasoning traces, written by: {', '.join(sources)}"
    return run.train(
        lambda checkpoints: _train(config, run, rows, checkpoints, metric_logger),
        lambda *_: Outcome("recone", [note], {"traces": len(records)}),
        key={**config.result_fields(), "traces": _digest(records)},
        budget=_completion_budget(config, run.loaded, records),
        reward=RatingReward(scale=prompt.scale),
        output=output,
        metric_logger=metric_logger,
        checkpoint_root=checkpoint_root,
    )


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
    run: RatingRun,
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
    model, tokenizer = run.loaded.model, run.prompt.tokenizer
    adapters = lora(config.lora_rank, config.lora_alpha)
    steps = max(1, round(config.num_train_epochs * len(rows) / config.batch_size))
    order = training_order(len(rows), steps, config.batch_size, config.seed)
    share = config.batch_size // world_size()
    per_device_train_batch_size = config.per_device_train_batch_size or share
    names = {"loss": "loss", "mean_token_accuracy": "token_accuracy", "learning_rate": "learning_rate"}
    with tempfile.TemporaryDirectory(prefix="latentrec-cold-start-") as directory:
        arguments: dict[str, Any] = trainer_settings(
            directory, seed=config.seed, model=model, sharding=config.sharding
        )
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
                eos_token=tokenizer.eos_token,
            ),
            train_dataset=Rows.from_list([rows[int(index)] for index in order]),
            processing_class=tokenizer,
            peft_config=adapters,
        )
        curve = train(
            trainer,
            checkpoints,
            metric_logger,
            save_steps=config.save_steps,
            metric_names=names,
            label="cold start",
        )
        return trained_model(trainer, run.reload, adapters), curve


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
    body = json.dumps([[trace.row, trace.completion, trace.rating] for trace in traces])
    return hashlib.sha256(body.encode()).hexdigest()
