"""Uncertainty by resampling *users*: samples of one user are not independent, so users are the unit.

Bootstrap (Efron & Tibshirani 1993, ch. 13: percentile interval, clusters drawn with replacement) and the
paired permutation test that flips the sign of a user's whole difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

DRAWS_IN_MEMORY = 20_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same samples.

    Attributes:
        difference: mean of first minus second.
        low, high: two-sided 95 % interval of the difference.
        one_sided_low: lower end of the one-sided 95 % interval, which the promotion gate reads.
        p_value: two-sided permutation test.
    """

    difference: float
    low: float
    high: float
    one_sided_low: float
    p_value: float


class ClusterBootstrap:
    """Resamples of the users of one set of samples, shared by every model and metric evaluated on them.

    One object draws the users once, so that all intervals and differences are of the same resamples.

    Args:
        clusters: int (S,), the user of each sample.
        n_resamples: number of resamples B.
        seed: of the draws.
    """

    def __init__(self, clusters: np.ndarray, *, n_resamples: int = 2000, seed: int = 42):
        _, self._cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
        self.n_samples = len(self._cluster_of)
        self.n_clusters = int(self._cluster_of.max()) + 1 if self.n_samples else 0
        self.n_resamples = n_resamples
        self.seed = seed
        self._sizes = np.bincount(self._cluster_of, minlength=self.n_clusters).astype(np.float64)

    def cluster_sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of ``values`` (S, M) over the samples of each cluster: float64 (C, M)."""
        sums = np.zeros((self.n_clusters, values.shape[1]))
        np.add.at(sums, self._cluster_of, values)
        return sums

    def resampled_means(self, values: np.ndarray) -> np.ndarray:
        """Means of each resample.

        Args:
            values: float (S, M), one column a metric.

        Returns:
            float64 (B, M): sum over the drawn users' samples divided by their number.
        """
        sums = np.column_stack([self._sizes, self.cluster_sums(np.asarray(values, np.float64))])
        totals = np.concatenate([weights @ sums for weights in self._weights()])
        return totals[:, 1:] / totals[:, :1]

    def intervals(self, values: np.ndarray) -> list[Interval]:
        """Mean and 95 % percentile interval of each column of ``values`` (S, M)."""
        values = np.asarray(values, np.float64)
        low, high = np.percentile(self.resampled_means(values), [2.5, 97.5], axis=0)
        return [Interval(*map(float, row)) for row in zip(values.mean(axis=0), low, high, strict=True)]

    def compare(self, first: np.ndarray, second: np.ndarray) -> Comparison:
        """Paired comparison of two models' values (S,) on the same samples."""
        difference = (np.asarray(first, np.float64) - np.asarray(second, np.float64))[:, None]
        means = self.resampled_means(difference)[:, 0]
        low, one_sided_low, high = np.percentile(means, [2.5, 5.0, 97.5])
        return Comparison(
            difference=float(difference.mean()),
            low=float(low),
            high=float(high),
            one_sided_low=float(one_sided_low),
            p_value=self.permutation_p_value(difference[:, 0]),
        )

    def resampled_differences(self, first_RS: np.ndarray, second_RS: np.ndarray) -> np.ndarray:
        """Differences of means over resamples of users and of training runs.

        Args:
            first_RS: float (R1, S), values of R1 training runs (seeds) of one recipe on the samples.
            second_RS: float (R2, S), of another recipe.

        Returns:
            float64 (B,): in each resample the users are drawn once for both, and as many runs as there are
            are drawn with replacement for each. With one run each, only users vary.
        """
        means = self.resampled_means(np.concatenate([first_RS, second_RS]).T)
        rng = np.random.default_rng([self.seed, 2])
        sides = []
        for rows in (means[:, : len(first_RS)], means[:, len(first_RS) :]):
            drawn = rng.integers(0, rows.shape[1], size=rows.shape)
            sides.append(np.take_along_axis(rows, drawn, axis=1).mean(axis=1))
        return sides[0] - sides[1]

    def one_sided_interval(self, first_RS: np.ndarray, second_RS: np.ndarray) -> tuple[float, float]:
        """Lower and upper end of the one-sided 95 % intervals of first minus second; arguments as above."""
        draws = self.resampled_differences(np.atleast_2d(first_RS), np.atleast_2d(second_RS))
        low, high = np.percentile(draws, [5.0, 95.0])
        return float(low), float(high)

    def permutation_p_value(self, differences: np.ndarray, n_permutations: int = 2000) -> float:
        """Two-sided p-value of a zero mean difference, by flipping the sign of each user's sum.

        The observed arrangement counts as one, so p is never 0 (Phipson & Smyth 2010).
        """
        sums = self.cluster_sums(np.asarray(differences, np.float64)[:, None])[:, 0]
        sums = sums[sums != 0]
        observed = abs(sums.sum())
        rng = np.random.default_rng([self.seed, 1])
        extreme, done = 0, 0
        block = max(1, DRAWS_IN_MEMORY // max(len(sums), 1))
        while done < n_permutations:
            size = min(block, n_permutations - done)
            signs = rng.integers(0, 2, size=(size, len(sums)), dtype=np.int8) * 2 - 1
            extreme += int((np.abs(signs @ sums) >= observed * (1 - 1e-12)).sum())
            done += size
        return (extreme + 1) / (n_permutations + 1)

    def _weights(self) -> Iterator[np.ndarray]:
        """How often each cluster is drawn in each resample, in blocks that fit in memory: (b, C)."""
        rng = np.random.default_rng([self.seed, 0])
        block = max(1, DRAWS_IN_MEMORY // max(self.n_clusters, 1))
        for start in range(0, self.n_resamples, block):
            yield _draw(rng, min(block, self.n_resamples - start), self.n_clusters)


def _draw(rng: np.random.Generator, rows: int, n_clusters: int) -> np.ndarray:
    drawn = rng.integers(0, n_clusters, size=(rows, n_clusters))
    drawn += np.arange(rows)[:, None] * n_clusters
    return (
        np.bincount(drawn.ravel(), minlength=rows * n_clusters).reshape(rows, n_clusters).astype(np.float32)
    )


def holm(p_values: np.ndarray | list[float]) -> np.ndarray:
    """Holm's step-down correction: adjusted p-values that control the family-wise error (Holm 1979)."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    scaled = np.minimum(1.0, p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(scaled)
    return adjusted
