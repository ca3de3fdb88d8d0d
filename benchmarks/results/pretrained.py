"""The placeholder for a pretrained backbone: a small language model that has read the catalogue's titles.

LatentR³ starts from a language model that can spell. A backbone from scratch spends most of a short training
on spelling, so the text cells of a dataset and seed start from one backbone that was trained on title lines
alone (no user's history, no order of events). It is made once and shared by all of them.
"""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from latentrec.data import Dataset
from latentrec.models.presets import PRESETS, Preset, build_backbone
from latentrec.prompts import NextItemPrompt
from latentrec.training.latentr3.sft import tokenizer_texts

BATCH = 64
PEAK = 4e-3
IGNORED = -100


def widened(preset: Preset) -> Preset:
    """The preset with the ``3 (d² + d)`` parameters of a LatentRATT spread over its feed-forward layers."""
    size = preset.hidden_size
    extra = round(3 * (size**2 + size) / (3 * size * preset.layers))
    return replace(preset, intermediate_size=preset.intermediate_size + extra)


def write_backbone(
    dataset: Path, preset: str, seed: int, directory: Path, *, epochs: int, wide: bool = False
) -> Path:
    """Make the backbone in Hugging Face layout, unless it is there.

    Args:
        dataset: whose titles it reads, each as often in an epoch as any other.
        preset: its shape.
        seed: of weights and order.
        directory: the place; ``pretraining.json`` beside the weights says what it cost and reached.
        epochs: passes over the titles; 0: weights stay as they were drawn.
        wide: with LatentRATT's parameters in its layers (the control of equal parameters).
    """
    if (directory / "pretraining.json").is_file():
        return directory
    data = Dataset(dataset)
    shape = widened(PRESETS[preset]) if wide else PRESETS[preset]
    model, tokenizer = build_backbone(shape, tokenizer_texts(data), seed=seed)
    prompt = NextItemPrompt(tokenizer)
    lines = [prompt.response_ids + prompt.encode_target(title) for title in dict.fromkeys(data.titles)]
    loss = float("nan")
    if epochs:
        loss = train_on_lines(
            model, lines, skip=len(prompt.response_ids) - 1, pad=prompt.pad_id, epochs=epochs, seed=seed
        )
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory, safe_serialization=True)
    spent = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "titles": len(lines),
        "epochs": epochs,
        "nats_per_title": round(loss, 3) if epochs else None,
        "nats_of_a_uniform_guess": round(float(np.log(len(lines))), 3),
        "processor_seconds_of_the_process": round(spent.ru_utime + spent.ru_stime, 1),
    }
    (directory / "pretraining.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return directory


def train_on_lines(
    model: torch.nn.Module, lines: list[list[int]], *, skip: int, pad: int, epochs: int, seed: int
) -> float:
    """Next-token training on lines, their first ``skip`` predictions not counted; nats a line at the end."""
    generator = np.random.default_rng(seed)
    steps = epochs * int(np.ceil(len(lines) / BATCH))
    warm_up = max(1, steps // 20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * float(np.cos(np.pi * min(1.0, step / steps)))),
    )
    model.train()
    nats = 0.0
    for _ in range(epochs):
        nats = 0.0
        jitter = np.argsort([len(line) for line in lines] + generator.uniform(0, 3, len(lines)))
        batches = [jitter[at : at + BATCH] for at in range(0, len(lines), BATCH)]
        for index in generator.permutation(len(batches)):
            ids, labels = _padded([lines[line] for line in batches[index]], skip, pad)
            logits = model(input_ids=ids[:, :-1]).logits
            loss = F.cross_entropy(
                logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
            )
            (loss / (labels != IGNORED).sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            nats += loss.item()
    model.eval()
    return nats / len(lines)


def _padded(lines: list[list[int]], skip: int, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, lines))
    ids = torch.full((len(lines), width), pad)
    labels = torch.full((len(lines), width), IGNORED)
    for row, line in enumerate(lines):
        ids[row, : len(line)] = torch.tensor(line)
        labels[row, skip + 1 : len(line)] = torch.tensor(line[skip + 1 :])
    return ids, labels
