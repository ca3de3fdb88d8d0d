"""Ranks with another user's latent: what a title model's latent says about the user shows in what is lost.

A latent that is the same for everybody, a learnt pause token, ranks as well when it is another user's. Only
where it ranks worse may a gain of latents be called reasoning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latentrec.catalog import Catalogue
from latentrec.data import Samples, sample_at_most
from latentrec.evaluation.ranking.candidates import Excluded
from latentrec.evaluation.ranking.scoring import ModelScores, score_model
from latentrec.metrics import ClusterBootstrap, Interval

READINGS = ("shuffled", "mean")


@dataclass(frozen=True)
class LatentGap:
    """A metric with the user's own latent, with another user's, and own minus other's, on the same
    samples."""

    metric: str
    samples: int
    own: Interval
    other: Interval
    gap: Interval

    def __str__(self) -> str:
        return (
            f"{self.metric} is {self.own.value:.4f} with a user's own latent and {self.other.value:.4f} with "
            f"another user's: {self.gap.value:+.4f} [{self.gap.low:+.4f}, {self.gap.high:+.4f}] on "
            f"{self.samples:,} samples"
        )


def reads_latents(recommender: Any) -> bool:
    """Whether a recommender is a title model with N ≥ 1 latents."""
    return getattr(getattr(recommender, "model", None), "n_latents", 0) > 0


@contextmanager
def other_latents(recommender: Any, reading: str = "shuffled") -> Iterator[Any]:
    """Within the block the title model reads other latents than its own.

    Args:
        recommender: a :class:`~latentrec.decoding.TitleRecommender`.
        reading: ``shuffled``: that of the user half a batch away, whose prompt is about as long; ``mean``:
            the batch's mean.
    """
    assert reading in READINGS, reading
    model = recommender.model
    begin = model.begin_answer

    @torch.no_grad()
    def begin_answer(state: Any) -> Any:
        own_BND = model.roll_out(state).means_BMND[:, 0]
        if reading == "mean":
            other_BND = own_BND.mean(dim=0, keepdim=True).expand_as(own_BND)
        else:
            other_BND = own_BND.roll(max(1, len(own_BND) // 2), dims=0)
        return begin(state, latents_BND=other_BND)

    model.begin_answer = begin_answer
    try:
        yield recommender
    finally:
        del model.begin_answer


def measure_gap(
    recommender: Any,
    scores: ModelScores,
    samples: Samples,
    catalogue: Catalogue,
    *,
    metric: str,
    limit: int,
    seed: int,
    n_resamples: int,
    excluded: Excluded | None = None,
) -> LatentGap:
    """Rank a seeded draw of at most ``limit`` samples again with another user's latent.

    Args:
        recommender: a title model with latents.
        scores: its scores of all ``samples`` with its own.
        excluded: what its lists did not hold, by index of sample.
    """
    drawn = sample_at_most(len(samples), limit, seed)
    part = samples.subset(drawn)
    with other_latents(recommender) as reader:
        of_part = None if excluded is None else lambda indices: excluded(drawn[indices])
        other = score_model(reader, part, catalogue, excluded=of_part).values(metric)
    own = scores.values(metric)[drawn]
    bootstrap = ClusterBootstrap(part.user_ids, n_resamples=n_resamples, seed=seed)
    intervals = bootstrap.intervals(np.column_stack([own, other, own - other]))
    return LatentGap(metric, len(drawn), *intervals)
