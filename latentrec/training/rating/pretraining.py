"""Format-aware pre-training of the placeholder for an instruct model, or naming a real one to start from.

RecZero needs a model that sometimes answers in the format: no reward varies, and nothing is learned,
where none ever does. A real instruct model can be asked; where there is none, this step trains a small
one from scratch on the generated text of :mod:`latentrec.training.rating.pretraining_corpus` and says so in
``model.json``. No rating of the dataset enters: the catalogue's titles and the wording of training-period
reviews, each put beside a random rating, are all that it sees.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from latentrec.catalog import ITEMS_FILE
from latentrec.data.dataset import Dataset
from latentrec.models.model_directory import ModelInfo, write_curve
from latentrec.models.rating.placeholder_model import PLACEHOLDER_NOTE, build_model, build_tokenizer
from latentrec.models.rating.text_predictor import (
    TextRatingPredictor,
    architecture_entry,
    load_language_model,
)
from latentrec.prompts.rating_examples import RatingTask
from latentrec.prompts.rating_prompt import RatingPrompt
from latentrec.storage import ArtifactWriter, Manifest, check_output
from latentrec.training.common.checkpointing import Checkpoints
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger
from latentrec.training.rating.pretrain_config import PRESET, PretrainRatingConfig
from latentrec.training.rating.pretraining_corpus import Instruction, InstructionCorpus, tokenizer_texts
from latentrec.training.rating.rewards import RatingReward
from latentrec.training.rating.trainer_setup import (
    measure_validity,
    prompt_settings,
    train,
    trainer_settings,
    write_rating_model,
)

SYSTEM = "rating_placeholder"
IGNORED = -100
BACKBONE_COMPLETION_TOKENS = 256
"""Budget of an answer of a real backbone that has none of its own; four sections of a few sentences."""
Row = tuple[list[int], list[int]]


def pretrain_rating(
    config: PretrainRatingConfig,
    *,
    dataset: str | Path,
    output: str | Path,
    metric_logger: MetricLogger = NO_METRICS,
    checkpoint_root: str | None = None,
) -> Manifest:
    """Make the model from which RecZero and RecOne start.

    With ``backbone`` other than ``tiny`` nothing is trained: the model directory then only names the
    backbone, so that a pipeline has the same shape with and without a placeholder.

    Raises:
        UserError: the dataset is not of the rating task or has no titles.
        Interrupted: a signal came; the state was saved where there is a ``checkpoint_root``.
    """
    check_output(output, kind="model", inputs=[dataset])
    data = Dataset(dataset)
    data.require_titles()
    task = RatingTask(data)
    if config.backbone != PRESET:
        return _name_backbone(config, task, Path(output))
    reviews = task.training_reviews()
    tokenizer = build_tokenizer(tokenizer_texts(data.titles, reviews), config.vocabulary)
    prompt = RatingPrompt(tokenizer, config.prompt, config.scale)
    model = build_model(tokenizer, config.shape, config.seed)
    corpus = InstructionCorpus(
        data.titles,
        prompt,
        reviews=reviews,
        format_rate=config.format_rate,
        reading_share=config.reading_share,
        seed=config.seed,
    )
    texts = corpus.take(config.max_steps * config.batch_size)
    with Checkpoints(
        checkpoint_root, step="pretrain_rating", config=config, dataset=data.fingerprint, parent=None
    ) as checkpoints:
        curve = _train(config, model, tokenizer, texts, checkpoints, metric_logger)
        examples = task.examples("valid", limit=config.measured_prompts, seed=config.seed)
        budget = int(config.max_completion_tokens or 0)
        predictor = TextRatingPredictor(model, tokenizer, prompt, max_new_tokens=budget)
        reward = RatingReward(scale=config.scale)
        metrics = measure_validity(predictor, examples, seed=config.seed).metrics("end", reward)
        metric_logger.log_metrics(
            {f"valid/{name}": value for name, value in metrics.items()}, config.max_steps
        )
        rated = [text for text in texts if text.rated]
        kept = float(np.mean([text.in_format for text in rated])) if rated else 0.0
        info = ModelInfo(
            system=SYSTEM,
            stage="pretrain_rating",
            config=config.to_dict(),
            architecture=architecture_entry(config.prompt, config.scale, budget, task.global_mean),
            metrics=metrics,
            dataset_fingerprint=data.fingerprint,
            parent=None,
            train_end=data.train_end,
            notes=[
                f"{PLACEHOLDER_NOTE}: {len(texts):,} texts, {len(rated):,} of them rating prompts, of which "
                f"{kept:.1%} are answered in the format, with ratings independent of the target"
            ],
        )
        with ArtifactWriter(output, "model", config, {"dataset": data.fingerprint}) as writer:
            write_rating_model(writer, model=model, tokenizer=tokenizer, info=info, dataset=data)
            write_curve(writer.path, curve)
            writer.counts = {"parameters": sum(p.numel() for p in model.parameters()), "texts": len(texts)}
    return writer.manifest


def _train(
    config: PretrainRatingConfig,
    model: Any,
    tokenizer: Any,
    texts: list[Instruction],
    checkpoints: Checkpoints,
    metric_logger: MetricLogger,
) -> list[dict[str, float]]:
    """Next-token prediction of the answers; the prompts are invented and hold nothing worth predicting."""
    from datasets import Dataset as Rows
    from transformers import Trainer, TrainingArguments

    from latentrec.training.common.resumable_trainer import ResumableTrainerMixin

    class PretrainingTrainer(ResumableTrainerMixin, Trainer):
        pass

    rows = [
        (tokenizer(text.prompt)["input_ids"], tokenizer(text.answer)["input_ids"] + [tokenizer.eos_token_id])
        for text in texts
    ]
    rows = _bucketed(rows, config.batch_size, config.seed)
    with tempfile.TemporaryDirectory(prefix="latentrec-pretrain-") as directory:
        arguments = TrainingArguments(
            **trainer_settings(directory, seed=config.seed),
            max_steps=config.max_steps,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, config.max_steps // 20),
            weight_decay=0.01,
            train_sampling_strategy="sequential",
        )
        trainer = PretrainingTrainer(
            model=model,
            args=arguments,
            train_dataset=Rows.from_dict({"input_ids": [p for p, _ in rows], "labels": [a for _, a in rows]}),
            data_collator=lambda batch: _collate(batch, tokenizer.pad_token_id),
        )
        return train(
            trainer,
            checkpoints,
            metric_logger,
            save_steps=config.save_steps,
            metric_names={"loss": "loss", "learning_rate": "learning_rate"},
            label="pre-training",
        )


def _bucketed(rows: list[Row], batch_size: int, seed: int) -> list[Row]:
    """The same rows, ordered so that each batch holds rows of like length; batches come in random order."""
    ordered: list[Row] = []
    bucket = 16 * batch_size
    for start in range(0, len(rows), bucket):
        chunk = sorted(rows[start : start + bucket], key=lambda row: len(row[0]) + len(row[1]))
        groups = [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
        for group in np.random.default_rng([seed, start]).permutation(len(groups)):
            ordered += groups[group]
    return ordered


def _collate(batch: list[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) + len(row["labels"]) for row in batch)
    ids = torch.full((len(batch), width), pad)
    labels = torch.full((len(batch), width), IGNORED)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for index, row in enumerate(batch):
        read, length = len(row["input_ids"]), len(row["input_ids"]) + len(row["labels"])
        ids[index, :length] = torch.tensor(row["input_ids"] + row["labels"])
        labels[index, read:length] = ids[index, read:length]
        mask[index, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _name_backbone(config: PretrainRatingConfig, task: RatingTask, output: Path) -> Manifest:
    """A model directory that holds no weights and names where they are."""
    loaded = load_language_model(config.backbone)
    settings = prompt_settings(loaded, config.prompt_overrides)
    # Rendered once here, so that a budget that holds no prompt is refused before anything trains.
    RatingPrompt(loaded.tokenizer, settings, config.scale).render(task.examples("train", limit=1)[0])
    own = None if loaded.info is None else loaded.info.architecture.get("max_new_tokens")
    budget = config.max_completion_tokens or own or BACKBONE_COMPLETION_TOKENS
    entry = architecture_entry(settings, config.scale, int(budget), task.global_mean)
    info = ModelInfo(
        system="rating_backbone",
        stage="pretrain_rating",
        config=config.to_dict(),
        architecture={**entry, "backbone": config.backbone},
        metrics={},
        dataset_fingerprint=task.dataset.fingerprint,
        parent=loaded.fingerprint,
        train_end=0,
        notes=[f"backbone {config.backbone}, as given", *loaded.notes],
    )
    with ArtifactWriter(output, "model", config, {"dataset": task.dataset.fingerprint}) as writer:
        info.write(writer.path)
        pq.write_table(task.dataset.items, writer.path / ITEMS_FILE)
    return writer.manifest
