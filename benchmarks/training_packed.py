"""An epoch of stage 1 with all prefixes of a user in one row, against one sample a row, on real histories.

All sides share the prompt between its two uses and bucket rows by length. The reference pads each batch, as
transformers computes it; a second entry compares with one sample a row whose padding is left out too, so
that what prefixes in common rows give by themselves stands apart. Users, titles and tokenizer are those of
Amazon Video Games, prepared by ``data-prep`` as for the results.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import in_turns, record
from latentrec.core import UserError
from latentrec.data import DataPrepConfig, Dataset, prepare
from latentrec.models.latentr3 import IGNORED, LatentR3Model
from latentrec.models.presets import train_tokenizer
from latentrec.prompts import NextItemPrompt
from latentrec.training.common.batching import LengthGroupedBatchSampler
from latentrec.training.latentr3.collator import NextItemTokens, answer_log_probs
from latentrec.training.latentr3.sft import tokenizer_texts
from latentrec.training.latentr3.sft_trainer import RowCollator

ROOT = Path(__file__).resolve().parents[1]
USERS = 200
WINDOWS = {"": 10, "_window_20": 20}
"""Suffix of the entry → titles that a prompt holds at most; a prompt that was cut shares no beginning."""
DATASET_USERS = 4_000
LONGEST_TITLE = 160
REPEATS = 3


def packed_epochs(model: LatentR3Model) -> None:
    """``sft_packed_epoch_vs_unpacked`` and ``…_vs_unpadded`` (windows of 10 and of 20)."""
    for suffix, window in WINDOWS.items():
        packed_epoch(model, suffix, window)


def packed_epoch(model: LatentR3Model, suffix: str, window: int) -> None:
    """Samples a second, forward and backward over an epoch."""
    tokens = video_games(model.backbone.vocab_size, window)
    sides, positions = {}, {}
    for side, rows, skips in (
        ("ours", tokens.packed_rows(), True),
        ("reference", tokens.single_rows(), False),
        ("unpadded", tokens.single_rows(), True),
    ):
        counts = [len(row.samples) for row in rows]
        lengths = [tokens.row_length(row) for row in rows]
        batch_sampler = LengthGroupedBatchSampler(
            lengths, counts, batch_size=64, micro_batches=1, seed=0, alike=counts
        )
        sides[side] = _epoch(model, batch_sampler, RowCollator(tokens, rows), skips)
        positions[side] = sum(lengths) + int(tokens.answer_lengths.sum())
    seconds = in_turns(sides, REPEATS, warm_up=0)
    best = {side: min(values) for side, values in seconds.items()}
    sizes = {
        "d": model.backbone.hidden_size,
        "users": USERS,
        "samples": len(tokens),
        "batch": 64,
        "window": window,
        "mean_prompt_tokens": round(float(tokens.prompt_lengths.mean()), 1),
        "bf16": False,
    }
    note = (
        f"best of {REPEATS} epochs; Amazon Video Games, leave-one-out, users drawn with seed 0; "
        f"{positions['reference'] / positions['ours']:.2f} times fewer tokens"
    )
    for name, side, what in (
        ("unpacked", "reference", "one sample a row, prompt encoded once, length buckets, padded"),
        ("unpadded", "unpadded", "the same with its padding left out, which only this library does"),
    ):
        record(
            f"sft_packed_epoch_vs_{name}{suffix}",
            len(tokens) / best["ours"],
            len(tokens) / best[side],
            "samples/s",
            REPEATS,
            sizes,
            lower_is_better=False,
            reference_is=what,
            note=note,
        )


def video_games(vocabulary: int, window: int) -> NextItemTokens:
    """Training samples of :data:`USERS` users, tokenized as ``sft`` does.

    Raises:
        UserError: the reviews are not there.
    """
    folder = (
        Path(os.environ.get("RESULTS_DATA", ROOT / "../shared/data")) / "amazon2018/Video_Games_sequences"
    )
    reviews = folder / "Video_Games.json.gz"
    if not reviews.is_file():
        raise UserError(
            f"{reviews}: no such file; give the folder that holds amazon2018/ with RESULTS_DATA=DIR"
        )
    config = DataPrepConfig(
        reviews=(str(reviews),),
        metadata=(str(folder / "meta_Video_Games.json.gz"),),
        k_core=1,
        split="leave_one_out",
        max_users=DATASET_USERS,
        max_history=window,
    )
    with tempfile.TemporaryDirectory() as scratch:
        prepare(config, Path(scratch) / "dataset")
        data = Dataset(Path(scratch) / "dataset")
        train, titles = data.split("train"), data.titles
        tokenizer = train_tokenizer(tokenizer_texts(data), vocabulary)
    users = np.random.default_rng(0).choice(np.unique(train.user_ids), USERS, replace=False)
    drawn = train.subset(np.flatnonzero(np.isin(train.user_ids, users)))
    return NextItemTokens(
        drawn, titles, NextItemPrompt(tokenizer, max_history=window, max_title_tokens=LONGEST_TITLE)
    )


def _epoch(
    model: LatentR3Model, batch_sampler: LengthGroupedBatchSampler, collate: RowCollator, skips_padding: bool
) -> Callable[[], None]:
    def epoch() -> None:
        model.backbone.skips_padding = skips_padding
        for indices in batch_sampler:
            batch = collate(indices)
            model.zero_grad(set_to_none=True)
            (-answer_log_probs(model, batch).sum() / (batch["labels"] != IGNORED).sum()).backward()

    return epoch
