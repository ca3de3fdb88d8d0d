"""Differences between trials with intervals over seeds and users: both are resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.controls.records import read_ranks, seeds_of
from latentrec.metrics import hit_rate_at_k, ndcg_at_k

RESAMPLES = 2000
SEED = 42


@dataclass(frozen=True)
class Difference:
    """``first − second`` in the mean over seeds and samples.

    Attributes:
        first, second: the means.
        value, low, high: difference and its 95 % percentile interval.
        relative, relative_low, relative_high: the same as a share of the second.
        by_seed: difference of each seed.
        draws: relative difference of each resample, for means and medians over datasets.
    """

    first: float
    second: float
    value: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    by_seed: tuple[float, ...]
    draws: np.ndarray

    @property
    def confirmed(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low > 0


def values_of(
    dataset: str, trial: str, metric: str, seeds: list[int], column: str = "title_rank"
) -> np.ndarray:
    """float64 (seeds, S): a metric of each sample."""
    of = {"HR@5": lambda r: hit_rate_at_k(r, k=5), "NDCG@10": lambda r: ndcg_at_k(r, k=10)}[metric]
    return np.stack([of(read_ranks(dataset, trial, seed)[column]) for seed in seeds])


def compare_trials(
    dataset: str,
    first: str,
    second: str,
    metric: str,
    *,
    first_column: str = "title_rank",
    second_column: str = "title_rank",
) -> Difference | None:
    """Compare two trials over the seeds that both have; ``None`` where there is none."""
    seeds = sorted(set(seeds_of(dataset, first)) & set(seeds_of(dataset, second)))
    if not seeds:
        return None
    users = read_ranks(dataset, first, seeds[0])["user_id"]
    return difference(
        values_of(dataset, first, metric, seeds, first_column),
        values_of(dataset, second, metric, seeds, second_column),
        users,
    )


class Resampler:
    """Draws of users with replacement, each with all its samples; one serves all pairs of a dataset."""

    def __init__(self, users: np.ndarray):
        """Draw once.

        Args:
            users: (S,) the user of each sample.
        """
        _, self._code = np.unique(users, return_inverse=True)
        self._count = int(self._code.max()) + 1
        self._rng = np.random.default_rng(SEED)
        even = np.full(self._count, 1 / self._count)
        self._drawn = self._rng.multinomial(self._count, even, size=RESAMPLES).astype(np.float32)
        self._samples = self._drawn @ np.bincount(self._code, minlength=self._count).astype(np.float32)

    def difference(
        self, first: np.ndarray, second: np.ndarray, counted: np.ndarray | None = None
    ) -> Difference:
        """The difference of two (seeds, S) tables of the same samples; seeds are drawn with replacement too,
        those of a pair together.

        Args:
            first, second: a metric of each sample.
            counted: bool (seeds, S), samples that a seed counts, at least one each. ``None``: all.
        """
        seeds = len(first)
        if counted is not None:
            first, second = (np.where(counted, table, 0.0) for table in (first, second))
        sums = self._sums(np.concatenate([first, second]))
        samples = self._samples[:, None]
        if counted is not None:
            samples = np.tile(np.maximum(self._sums(counted.astype(float)), 1e-12), 2)
        of_seeds = sums / samples
        rng = np.random.default_rng(SEED)
        weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
        one, other = ((part * weights).sum(axis=1) for part in np.split(of_seeds, 2, axis=1))
        draws = one / np.maximum(other, 1e-12) - 1
        low, high = np.percentile(one - other, [2.5, 97.5])
        relative_low, relative_high = np.percentile(draws, [2.5, 97.5])
        share = 1.0 if counted is None else first.shape[1] / counted.sum(axis=1)
        firsts, seconds = (table.mean(axis=1) * share for table in (first, second))
        return Difference(
            first=float(firsts.mean()),
            second=float(seconds.mean()),
            value=float(firsts.mean() - seconds.mean()),
            low=float(low),
            high=float(high),
            relative=float(firsts.mean() / max(seconds.mean(), 1e-12) - 1),
            relative_low=float(relative_low),
            relative_high=float(relative_high),
            by_seed=tuple((firsts - seconds).tolist()),
            draws=draws,
        )

    def _sums(self, table: np.ndarray) -> np.ndarray:
        """(resamples, rows): the sum of each row over the users of each draw."""
        of_users = np.stack([np.bincount(self._code, row, self._count) for row in table])
        return self._drawn @ of_users.T.astype(np.float32)


def difference(first: np.ndarray, second: np.ndarray, users: np.ndarray) -> Difference:
    """:meth:`Resampler.difference` of one pair."""
    return Resampler(users).difference(first, second)


def median_gain(differences: list[Difference]) -> tuple[float, float, float]:
    """Median over datasets of the relative differences, with its 95 % interval."""
    low, high = np.percentile(np.median([one.draws for one in differences], axis=0), [2.5, 97.5])
    return float(np.median([one.relative for one in differences])), float(low), float(high)
