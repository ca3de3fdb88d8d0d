"""What the two stages of LatentR³ share: datasets that suit a text model, validation, the model directory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentrec.catalog import ITEMS_FILE, Catalogue
from latentrec.core import UserError
from latentrec.data import Dataset
from latentrec.models.latentr3 import IGNORED, LatentR3Model, architecture, save_latentr3
from latentrec.models.model_directory import ModelInfo, write_curve
from latentrec.prompts import NextItemPrompt
from latentrec.storage import ArtifactWriter, Manifest
from latentrec.training.common.early_stopping import OBJECTIVE, EarlyStopping
from latentrec.training.latentr3.collator import NextItemTokens, answer_pass, plain_batch
from latentrec.training.latentr3.latent_terms import USER_SHARE, UserShare, warn_if_collapsed

_VALIDATION_TOKENS_AT_ONCE = 16384


def open_text_dataset(directory: str | Path) -> Dataset:
    """Open a dataset that a title model can learn from.

    Raises:
        UserError: no dataset, no titles, a rating task, or no training samples.
    """
    dataset = Dataset(directory)
    dataset.require_titles()
    if (task := dataset.manifest.config.get("task", "next_item")) != "next_item":
        raise UserError(
            f"{directory} was made with --task {task}; LatentR3 needs --task next_item",
            code="dataset.other_task",
        )
    for split in ("train", "valid"):
        if not len(dataset.split(split)):
            raise UserError(
                f"{directory}: the {split} split is empty; loosen --k-core or widen the window in data-prep",
                code="dataset.nothing_left",
            )
    return dataset


def validation_figures(
    model: LatentR3Model, tokens: NextItemTokens, objective: Callable[[Tensor], Tensor] | None = None
) -> dict[str, float]:
    """``loss``: token mean of −log π over a split, as stage 1's is; ``objective``: mean over its samples of a
    function of the true title's log-probability, where one is given; ``latent_user_share``: share of the
    latents' power that varies over the split's users, where there are latents."""
    shares = UserShare()
    order = np.argsort(tokens.prompt_lengths, kind="stable")
    total, reached, count, start = 0.0, 0.0, 0, 0
    with torch.no_grad():
        while start < len(order):
            longest = int(tokens.prompt_lengths[order[min(start + 63, len(order) - 1)]])
            stop = start + max(1, min(64, _VALIDATION_TOKENS_AT_ONCE // longest))
            batch = plain_batch(tokens, order[start:stop].tolist())
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            log_probs, latents_BMND = answer_pass(model, batch, allowed_tokens=tokens.allowed_tokens)
            log_probs = log_probs.double()
            if latents_BMND is not None:
                shares.add(latents_BMND.flatten(0, 1))
            total -= float(log_probs.sum())
            count += int((batch["labels"] != IGNORED).sum())
            if objective is not None:
                reached += float(objective(log_probs.sum(dim=-1)).sum())
            start = stop
    figures = {"loss": total / count}
    if model.n_latents:
        figures[USER_SHARE] = shares.value()
    return figures if objective is None else figures | {OBJECTIVE: reached / len(order)}


class Throughput:
    """Tokens a second since the last call, and memory: figures of every log."""

    def __init__(self) -> None:
        """Begin counting."""
        self.tokens = 0
        self._since = time.monotonic()

    def figures(self) -> dict[str, float]:
        """``tokens_per_second`` since the last call, ``memory_peak_mb`` (of the GPU where there is one)."""
        now = time.monotonic()
        rate = self.tokens / max(now - self._since, 1e-9)
        self.tokens, self._since = 0, now
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated() / 2**20
        else:
            unit = 2**20 if sys.platform == "darwin" else 2**10
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        return {"tokens_per_second": rate, "memory_peak_mb": peak}


def write_model(
    output: str | Path,
    *,
    model: LatentR3Model,
    prompt: NextItemPrompt,
    dataset: Dataset,
    stage: str,
    config: Any,
    parent: str | None,
    early_stopping: EarlyStopping,
    load_best: bool,
    notes: list[str],
    counts: dict[str, Any],
    curve: list[dict[str, float]],
    parent_train_end: int = 0,
) -> Manifest:
    """Write the model directory: weights, tokenizer, catalogue, ``model.json``, manifest last.

    ``curve`` has an entry for each logged step. The manifest's ``evaluations`` are the figures of each
    evaluation on validation. ``train_end`` is that of the dataset or of the parent, whichever is later: what
    the parent has seen, its child has seen.
    """
    inputs = {"dataset": dataset.fingerprint} | ({"model": parent} if parent else {})
    metrics = early_stopping.best_metrics if load_best else early_stopping.last_metrics
    if USER_SHARE in metrics and model.pause_tokens is None:
        collapsed = warn_if_collapsed(metrics[USER_SHARE])
        notes = [*notes, *([collapsed] if collapsed else [])]
    with ArtifactWriter(output, "model", config, inputs) as artifact:
        save_latentr3(model, prompt.tokenizer, artifact.path)
        Catalogue.from_dataset(dataset).write(artifact.path / ITEMS_FILE)
        ModelInfo(
            system="latentr3",
            stage=stage,
            config=artifact.config,
            architecture=architecture(model, prompt),
            metrics=metrics,
            dataset_fingerprint=dataset.fingerprint,
            parent=parent,
            train_end=max(dataset.train_end, parent_train_end),
            notes=notes + early_stopping.notes,
        ).write(artifact.path)
        write_curve(artifact.path, curve, early_stopping.history)
        artifact.counts = counts
        artifact.extra = {"evaluations": early_stopping.history}
    return artifact.manifest


def make_measure(
    model: LatentR3Model,
    tokens: NextItemTokens,
    rank: Callable[[], dict[str, float]] | None = None,
    objective: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[], dict[str, float]]:
    """Validation figures: :func:`validation_figures`, and where given those of ``rank`` (HR and NDCG by the
    real decoder)."""

    def measure() -> dict[str, float]:
        figures = validation_figures(model, tokens, objective)
        return figures | (rank() if rank is not None else {})

    return measure
