"""Part p: real histories (Office), SmolLM2: a row for all prefixes of a user, single rows, transformers.

The same training samples on every side, batch by batch as the trainer orders them; forward, backward and
AdamW, bf16 autocast on a GPU. Plain transformers reads ``[prompt, answer]`` padded on the right, with its own
loss.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.context import Context
from benchmarks.gpu.training import autocast
from latentrec.data import DataPrepConfig, Dataset, generate_sample, prepare
from latentrec.models.latentr3 import IGNORED, LatentR3Model, load_backbone
from latentrec.prompts import NextItemPrompt
from latentrec.training.latentr3.collator import NextItemTokens, TokenRow, answer_log_probs
from latentrec.training.latentr3.sft import tokenizer_texts
from latentrec.training.latentr3.sft_trainer import RowCollator, row_batches

BATCH, STEPS = 32, 10


def run(context: Context) -> None:
    """Samples a second and memory of each side."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Dataset(dataset_of(context, Path(scratch)))
        source = "micro" if context.toy else (context.model or "medium")
        backbone, tokenizer = load_backbone(source, texts=tokenizer_texts(data), seed=0)
        prompt = NextItemPrompt(tokenizer, max_title_tokens=256, max_prompt_tokens=1024)
        train = data.split("train")
        users = np.unique(train.user_ids)[: 40 if context.toy else 900]
        tokens = NextItemTokens(
            train.subset(np.flatnonzero(np.isin(train.user_ids, users))), data.titles, prompt
        )
        model = LatentR3Model(backbone).to(context.device)
        plain = LatentR3Model(model.backbone.model, n_latents=0)
        sides: dict[str, Callable[[], Callable[[], int]]] = {
            "transformers": lambda: stepper(
                context, plain, batches(tokens, tokens.single_rows()), transformers_loss
            ),
            "single rows": lambda: stepper(context, model, batches(tokens, tokens.single_rows()), our_loss),
            "packed": lambda: stepper(context, model, batches(tokens, tokens.packed_rows()), our_loss),
        }
        for name, make in sides.items():
            for label in ("", ", compiled") if context.device == "cuda" and name == "packed" else ("",):
                if label:
                    model.backbone.compile_layers()
                measure(context, f"{source}, {name}{label}", make)


def measure(context: Context, name: str, make: Callable[[], Callable[[], int]]) -> None:
    """Steady rate over :data:`STEPS` optimizer steps, after as many unmeasured."""
    steps = 2 if context.toy else STEPS
    step = make()
    for _ in range(steps):
        step()
    counted = 0

    def some() -> None:
        nonlocal counted
        counted = sum(step() for _ in range(steps))

    seconds = context.seconds(some, repeats=1, warm_up=0)
    context.record(
        "p Office histories, batch 32",
        name,
        samples_per_s=counted / seconds,
        step_ms=1e3 * seconds / steps,
        gb=context.peak_gb(step),
    )


def dataset_of(context: Context, scratch: Path) -> Path:
    """Office where it was carried, else the generated sample."""
    if context.datasets is not None and (context.datasets / "office").is_dir():
        return context.datasets / "office"
    reviews, metadata = generate_sample(scratch / "reviews")
    prepare(DataPrepConfig(reviews=(str(reviews),), metadata=(str(metadata),)), scratch / "dataset")
    return scratch / "dataset"


def batches(
    tokens: NextItemTokens, rows: list[TokenRow]
) -> Iterator[tuple[NextItemTokens, list[int], dict[str, Tensor]]]:
    """Batches in the trainer's order, without end; with the samples that each holds."""
    batch_sampler, collate = row_batches(tokens, rows, BATCH, 1, 0), RowCollator(tokens, rows)
    while True:
        for indices in batch_sampler:
            yield tokens, [sample for index in indices for sample in rows[index].samples], collate(indices)


def our_loss(
    model: LatentR3Model, tokens: NextItemTokens, samples: list[int], batch: dict[str, Tensor]
) -> Tensor:
    """Stage 1 as the trainer computes it."""
    return -answer_log_probs(model, batch).sum() / (batch["labels"] != IGNORED).sum()


def transformers_loss(
    model: LatentR3Model, tokens: NextItemTokens, samples: list[int], batch: dict[str, Tensor]
) -> Tensor:
    """transformers' loss of the same samples (N = 0)."""
    inputs: Any = {name: ids.to(model.device) for name, ids in padded_rows(tokens, samples).items()}
    return model.backbone.model(**inputs, use_cache=False).loss


def padded_rows(tokens: NextItemTokens, samples: list[int]) -> dict[str, Tensor]:
    """``[prompt, answer]`` of each sample, padded on the right; labels at the answers."""
    pairs = [(tokens.prompt_ids(sample), tokens.answer_ids(sample)) for sample in samples]
    width = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, (prompt, answer) in enumerate(pairs):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
        mask[row, :end] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def stepper(
    context: Context,
    model: LatentR3Model,
    source: Iterator[tuple[NextItemTokens, list[int], dict[str, Tensor]]],
    loss: Callable[..., Tensor],
) -> Callable[[], int]:
    """One optimizer step; returns how many samples it took."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=context.device == "cuda")

    def step() -> int:
        tokens, samples, batch = next(source)
        batch = {name: tensor.to(context.device, non_blocking=True) for name, tensor in batch.items()}
        optimizer.zero_grad(set_to_none=True)
        with autocast(context):
            value = loss(model, tokens, samples, batch)
        value.backward()
        optimizer.step()
        return len(samples)

    return step
