"""The trainer of stage 1: transformers' loop, the shared-prefix loss, rows in a fixed order."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Rows
from transformers import Trainer

from latentrec.models.latentr3 import IGNORED, AllowedTokensOf
from latentrec.training.common.batching import BLANK, LengthGroupedBatchSampler
from latentrec.training.common.resumable_trainer import ResumableTrainerMixin
from latentrec.training.common.trainer_compat import CountedItems
from latentrec.training.latentr3.batch_splitting import split_batch
from latentrec.training.latentr3.collator import (
    NextItemTokens,
    TokenRow,
    answer_pass,
    has_title,
    packed_batch,
    plain_batch,
    with_indices,
)
from latentrec.training.latentr3.latent_terms import latent_loss
from latentrec.training.latentr3.text_model import Throughput


class _Indices(Rows[int]):
    """Every index is its own sample, ``BLANK`` too: the collator maps it to a row."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:
        return index


class SFTTrainer(CountedItems, ResumableTrainerMixin, Trainer):
    """``transformers.Trainer`` with the shared-prefix loss; rows come from a
    :class:`~latentrec.training.common.batching.LengthGroupedBatchSampler`."""

    def __init__(
        self,
        *,
        batch_sampler: LengthGroupedBatchSampler,
        collate: Any,
        allowed_tokens: AllowedTokensOf | None = None,
        throughput: Throughput,
        prompt_key_dropout: float = 0.0,
        latent_loss: str = "none",
        latent_loss_weight: float = 0.0,
        max_tokens_per_forward: int = 0,
        **options: Any,
    ):
        """Take the micro-batches' order in place of a sampler."""
        self._max_tokens_per_forward = max_tokens_per_forward
        self._allowed_tokens = allowed_tokens
        self._prompt_key_dropout = prompt_key_dropout
        self._latent_loss, self._latent_loss_weight = latent_loss, latent_loss_weight
        self._batch_sampler = batch_sampler
        self._collate = collate
        self._throughput = throughput
        super().__init__(**options)
        # compute_loss divides by the optimizer batch's tokens, so the engine must not divide again.
        self.model_accepts_loss_kwargs = True

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batches in the sampler's order, distributed over the processes."""
        loader: DataLoader = DataLoader(
            _Indices(self._batch_sampler.rows),
            batch_sampler=self._batch_sampler,
            collate_fn=self._collate,
            **prefetching(),
        )
        return self.accelerator.prepare(loader)

    def count_items(self, batches: list, device: torch.device) -> Tensor:
        """Answer tokens of an optimizer batch over all processes; shape ()."""
        total = torch.stack([self._items_of(batch["labels"]) for batch in batches]).sum().to(device)
        return self.accelerator.reduce(total, reduction="sum").clamp(min=1)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Forward and backward of a micro-batch, in groups of ``max_tokens_per_forward`` tokens."""
        groups = split_batch(inputs, self._max_tokens_per_forward)
        losses = []
        for number, group in enumerate(groups, start=1):
            # Several processes exchange gradients once a micro-batch, however many groups each has.
            alone = nullcontext() if number == len(groups) else self.accelerator.no_sync(model)
            with alone:
                losses.append(super().training_step(model, group, num_items_in_batch))
        return torch.stack(losses).sum()

    def _items_of(self, labels: Tensor) -> Tensor:
        """What the loss of a batch is the mean of: its answers' tokens, counted."""
        return (labels != IGNORED).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This micro-batch's share of the optimizer batch's token mean."""
        log_probs_BML, latents_BMND = self._answer_pass(model, inputs)
        counted = (inputs["labels"] != IGNORED).sum()
        total = -log_probs_BML.sum() + counted * self._latent_term(model, inputs, latents_BMND)
        # DDP averages gradients over processes; each process contributes its part of one sum.
        return total / num_items_in_batch * self.accelerator.num_processes

    def _answer_pass(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities (B, M, L) and latents (B, M, N, d) of one micro-batch, in training."""
        options: Any = {
            "allowed_tokens": self._allowed_tokens,
            "prompt_key_dropout": self._prompt_key_dropout,
        }
        log_probs, latents = model(lambda latentr3: answer_pass(latentr3, inputs, **options))
        self._throughput.tokens += inputs["input_ids"].numel() + log_probs.numel()
        return log_probs, latents

    def _latent_term(self, model: nn.Module, inputs: dict[str, Any], latents_BMND: Tensor | None) -> Any:
        """``latent_loss_weight`` × the latent loss of a micro-batch; 0 where there is none."""
        if self._latent_loss == "none" or latents_BMND is None:
            return 0.0
        labels_BML = inputs["labels"]
        samples_BM = has_title(labels_BML)
        labels_SL = labels_BML[samples_BM]
        if len(labels_SL) < 2:
            return 0.0
        counted_SL = labels_SL != IGNORED
        backbone = self.accelerator.unwrap_model(model).backbone
        with torch.no_grad():
            embeds_SLD = backbone.embed(labels_SL.clamp(min=0)) * counted_SL[..., None]
            titles_SD = embeds_SLD.sum(dim=1) / counted_SL.sum(dim=1, keepdim=True)
            targets_S = torch.unique(labels_SL, dim=0, return_inverse=True)[1]
        term = latent_loss(self._latent_loss, latents_BMND[samples_BM], titles_SD, targets_S)
        return self._latent_loss_weight * term


def prefetching() -> dict[str, Any]:
    """Where there is a GPU, batches are made beside it in two processes, pinned, ahead of the step."""
    if not torch.cuda.is_available():
        return {}
    return {"num_workers": 2, "prefetch_factor": 4, "pin_memory": True}


def row_batches(
    tokens: NextItemTokens, rows: list[TokenRow], batch_size: int, micro_batches: int, seed: int
) -> LengthGroupedBatchSampler:
    """The order of rows, packed or not; ``batch_size`` counts samples."""
    return LengthGroupedBatchSampler(
        [tokens.row_length(row) for row in rows],
        [len(row.samples) for row in rows],
        batch_size=batch_size,
        micro_batches=micro_batches,
        seed=seed,
        alike=[len(row.samples) for row in rows],
    )


class RowCollator:
    """Row indices to a batch: packed where any row holds more than one sample."""

    def __init__(self, tokens: NextItemTokens, rows: list[TokenRow]):
        """Keep what the indices mean."""
        self._tokens = tokens
        self._rows = rows

    def __call__(self, indices: list[int]) -> dict[str, Tensor]:
        """Make the batch; ``BLANK`` gives a row without labels."""
        rows = [self._rows[0] if index == BLANK else self._rows[index] for index in indices]
        if all(len(row.samples) == 1 for row in rows):
            batch = plain_batch(self._tokens, [row.samples[0] for row in rows])
        else:
            batch = packed_batch(self._tokens, rows)
        for i, index in enumerate(indices):
            if index == BLANK:
                batch["labels"][i] = IGNORED
        return with_indices(batch)
