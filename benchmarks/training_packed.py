"""An epoch of stage 1 with all prefixes of a user in one row, against one sample a row, on real histories.

Both sides share the prompt between its two uses and bucket rows by length; what is measured is the packing
alone. Users, titles and tokenizer are those of Amazon Video Games,
prepared by ``data-prep`` as for the results.
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
from latentrec.training.batching import BatchPlan
from latentrec.training.next_item import NextItemTokens, answer_log_probs
from latentrec.training.sft import RowCollator, tokenizer_texts

ROOT = Path(__file__).resolve().parents[1]
USERS = 100
DATASET_USERS = 4_000
REPEATS = 3


def packed_epoch(model: LatentR3Model) -> None:
    """``sft_packed_epoch_vs_unpacked``: samples a second, forward and backward over an epoch."""
    tokens = video_games(model.backbone.vocab_size)
    sides, positions = {}, {}
    for name, rows in (("ours", tokens.packed_rows()), ("reference", tokens.single_rows())):
        counts = [len(row.samples) for row in rows]
        lengths = [tokens.row_length(row) for row in rows]
        plan = BatchPlan(lengths, counts, batch_size=64, micro_batches=1, seed=0, alike=counts)
        sides[name] = _epoch(model, plan, RowCollator(tokens, rows))
        positions[name] = sum(lengths) + int(tokens.answer_lengths.sum())
    seconds = in_turns(sides, REPEATS, warm_up=0)
    best = {name: min(values) for name, values in seconds.items()}
    record(
        "sft_packed_epoch_vs_unpacked",
        len(tokens) / best["ours"],
        len(tokens) / best["reference"],
        "samples/s",
        REPEATS,
        {
            "d": model.backbone.hidden_size,
            "users": USERS,
            "samples": len(tokens),
            "batch": 64,
            "mean_prompt_tokens": round(float(tokens.prompt_lengths.mean()), 1),
            "precision": "fp32",
        },
        lower_is_better=False,
        reference_is="one sample a row, prompt encoded once, length buckets",
        note=f"best of {REPEATS} epochs; Amazon Video Games, leave-one-out, users drawn with seed 0; "
        f"{positions['reference'] / positions['ours']:.2f} times fewer tokens",
    )


def video_games(vocabulary: int) -> NextItemTokens:
    """Training samples of :data:`USERS` users, tokenised as ``sft`` does.

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
    )
    with tempfile.TemporaryDirectory() as scratch:
        prepare(config, Path(scratch) / "dataset")
        data = Dataset(Path(scratch) / "dataset")
        train, titles = data.split("train"), data.titles
        tokenizer = train_tokenizer(tokenizer_texts(data), vocabulary)
    users = np.random.default_rng(0).choice(np.unique(train.user_ids), USERS, replace=False)
    drawn = train.subset(np.flatnonzero(np.isin(train.user_ids, users)))
    return NextItemTokens(drawn, titles, NextItemPrompt(tokenizer))


def _epoch(model: LatentR3Model, plan: BatchPlan, collate: RowCollator) -> Callable[[], None]:
    def epoch() -> None:
        for indices in plan:
            batch = collate(indices)
            model.zero_grad(set_to_none=True)
            (-answer_log_probs(model, batch).sum() / (batch["labels"] != IGNORED).sum()).backward()

    return epoch
