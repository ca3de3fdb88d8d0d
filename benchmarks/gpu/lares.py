"""Part e: an epoch of LARES' pre-training, and of SASRec, on generated sequences of Video Games' shape."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.gpu.context import Context
from benchmarks.lares import BATCH, MAX_LENGTH, N_ITEMS, generated_samples
from latentrec.models.sequential import LARES, SASRec, SequenceEncoder
from latentrec.training.sequential.rows import Rows, epoch_batches, pack_by_user
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.state import reseed
from latentrec.training.sequential.train import make_loss


def run(context: Context) -> None:
    """Targets a second, and the time of an epoch over all 50,546 users at that rate."""
    samples = generated_samples(50 if context.toy else 6_000)
    rows = pack_by_user(samples, MAX_LENGTH)
    for name, encoder, config in (
        ("LARES, SPT", LARES(n_items=N_ITEMS, max_length=MAX_LENGTH), SequentialConfig(encoder="lares")),
        ("SASRec", SASRec(n_items=N_ITEMS, max_length=MAX_LENGTH), SequentialConfig()),
    ):
        epoch = one_epoch(encoder.to(context.device), rows, config, context.device)
        seconds = context.seconds(epoch, repeats=1 if context.toy else 2, warm_up=1)
        context.record(
            "e epoch",
            name,
            targets=len(samples),
            seconds=seconds,
            targets_per_s=len(samples) / seconds,
            gb=context.peak_gb(epoch),
        )


def one_epoch(
    encoder: SequenceEncoder, rows: Rows, config: SequentialConfig, device: str
) -> Callable[[], None]:
    """All optimizer steps of an epoch, as the trainer takes them."""
    loss: Callable = make_loss(config, encoder, rows)
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
