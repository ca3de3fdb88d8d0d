"""LARES: an epoch of pre-training against three separate forwards, SASRec beside it, and full ranking.

The data are generated with the lengths of Video Games' users (mean 8.7 events, a long tail) and 16,859 items,
so that the benchmark needs no files; speed does not depend on what the items are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.harness import in_turns, medians, record
from benchmarks.lares_separate import SeparateForwards
from latentrec.catalog import Catalogue
from latentrec.data import Samples
from latentrec.models.sequential import LARES, SASRec, SequenceEncoder, SequentialRecommender
from latentrec.training.sequential.rows import Rows, epoch_batches, one_row_per_sample, pack_by_user
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.state import cpu_threads, reseed
from latentrec.training.sequential.train import make_loss

N_ITEMS, N_USERS, MAX_LENGTH, BATCH, REPEATS = 16_859, 200, 20, 1024, 3
THREE_FORWARDS = {"similarity": "dot", "temperature": 1.0, "views": "separate"}
"""What the reference computes; the default takes the alignments' anchor from the loss's own forward."""
RANKED_USERS = 12_000


def run() -> None:
    """Measure and record ``lares_epoch_vs_separate``."""
    with cpu_threads(int(os.environ.get("BENCH_THREADS", "1"))):
        _measure()


def _measure() -> None:
    samples = generated_samples(N_USERS)
    packed, separate = pack_by_user(samples, MAX_LENGTH), one_row_per_sample(samples, MAX_LENGTH)
    lares = LARES(n_items=N_ITEMS, max_length=MAX_LENGTH)
    sasrec = SASRec(n_items=N_ITEMS, max_length=MAX_LENGTH)
    sides = {
        "ours": epoch_of(lares, packed, SequentialConfig(encoder="lares", **THREE_FORWARDS)),
        "ours_all_anchors": epoch_of(
            lares, packed, SequentialConfig(encoder="lares", anchors="all", **THREE_FORWARDS)
        ),
        "ours_default": epoch_of(lares, packed, SequentialConfig(encoder="lares")),
        "reference": epoch_of(lares, separate, None),
        "sasrec": epoch_of(sasrec, packed, SequentialConfig()),
    }
    seconds = medians(in_turns(sides, REPEATS, clock=time.process_time))
    rates = {name: len(samples) / value for name, value in seconds.items()}
    record(
        "lares_epoch_vs_separate",
        rates["ours"],
        rates["reference"],
        "training targets/processor second",
        REPEATS,
        {
            "users": N_USERS,
            "targets": len(samples),
            "items": N_ITEMS,
            "max_length": MAX_LENGTH,
            "batch": BATCH,
            "hidden_size": 64,
            "pre_layers": 2,
            "core_layers": 2,
            "mean_steps": 4,
            "threads": torch.get_num_threads(),
        },
        lower_is_better=False,
        ours_with_all_anchors=rates["ours_all_anchors"],
        ratio_with_all_anchors=rates["ours_all_anchors"] / rates["reference"],
        ours_default=rates["ours_default"],
        sasrec=rates["sasrec"],
        rank_all_users_s=ranking_seconds(lares),
        ranked_users=RANKED_USERS,
        clock="processor seconds of one thread",
        note="ours: the three forwards on packed rows, one anchor a row; ours_default: as trained, with the "
        "alignments' anchor from the loss's own forward; reference: the three forwards on separately padded "
        "prefixes, without the published code's unused log-probabilities and quadratic search "
        "(benchmarks/lares_separate.py); rank_all_users_s: the whole catalogue ranked for each of "
        "ranked_users, in chunks",
    )


def generated_samples(n_users: int) -> Samples:
    """Leave-one-out training samples of users with a geometric number of events, items by a power law."""
    generator = np.random.default_rng(0)
    weights = 1 / np.arange(10, N_ITEMS + 10)
    histories, targets, users = [], [], []
    for user, length in enumerate(3 + generator.geometric(1 / 5.7, n_users)):
        events = generator.choice(N_ITEMS, size=length - 2, p=weights / weights.sum())
        for position in range(1, len(events)):
            histories.append(events[max(0, position - MAX_LENGTH) : position])
            targets.append(events[position])
            users.append(user)
    lengths = [len(history) for history in histories]
    return Samples(
        user_ids=np.array(users, np.int32),
        history_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        history_items=np.concatenate(histories).astype(np.int32),
        targets=np.array(targets, np.int32),
        ratings=np.ones(len(targets), np.float32),
        timestamps=np.arange(len(targets), dtype=np.int64),
    )


def epoch_of(encoder: SequenceEncoder, rows: Rows, config: SequentialConfig | None) -> Callable[[], None]:
    """One epoch of optimizer steps; ``config`` of ``None`` is the separate formulation."""
    if config is None:
        assert isinstance(encoder, LARES)
        loss: Callable = SeparateForwards(encoder, rows, mean_steps=4)
    else:
        loss = make_loss(config, encoder, rows)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)

    def epoch() -> None:
        encoder.train()
        for step, batch in enumerate(epoch_batches(rows, BATCH, seed=0, epoch=0)):
            reseed(0, step)
            value, _ = loss(batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()

    return epoch


def ranking_seconds(encoder: SequenceEncoder) -> float:
    """Processor seconds to rank the whole catalogue for ``RANKED_USERS`` users with a full history."""
    keys = [str(item) for item in range(N_ITEMS)]
    catalogue = Catalogue.from_items(keys, keys, np.ones(N_ITEMS, np.int64))
    recommender = SequentialRecommender(encoder, catalogue)
    histories = list(np.random.default_rng(0).integers(0, N_ITEMS, size=(RANKED_USERS, MAX_LENGTH)))
    start = time.process_time()
    recommender.rank(histories, 10)
    return time.process_time() - start
