"""What was asked of the figures, beside what they are: the head of ``docs/results.md``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.results.datasets import DATASETS
from benchmarks.results.records import Results, test_users
from latentrec.metrics import ClusterBootstrap

HARM = -0.002


@dataclass(frozen=True)
class Goal:
    """A pair of cells and what their difference should be.

    Attributes:
        first, second: cells; the difference is first − second.
        metric: on which.
        gain: relative gain that the paper reports as its mean, ``None`` where above zero is the goal.
        least: smallest absolute difference that counts as reached when no interval is asked for.
        meaning: for people.
    """

    first: str
    second: str
    metric: str
    meaning: str
    gain: float | None = None
    least: float | None = None


TITLES = (
    Goal("titles-latentr3", "bigrec-catalogue", "HR@5", "LatentR³ over BIGRec", gain=0.170),
    Goal("d3-titles-latentr3", "d3-catalogue", "HR@5", "LatentR³ over D3", gain=0.084),
    Goal("titles-latentr3", "latentr3-sft-catalogue", "HR@5", "RL over SFT"),
    Goal("titles-latentr3", "latentr3-sft-catalogue", "NDCG@10", "RL does not harm", least=HARM),
)
"""Stage 2 at its default."""
_GOALS = (
    Goal("latentr3", "bigrec", "HR@5", "LatentR³ over BIGRec", gain=0.170),
    Goal("d3-latentr3", "d3", "HR@5", "LatentR³ over D3", gain=0.084),
    Goal("latentr3", "latentr3-sft", "HR@5", "RL over SFT"),
    Goal("latentr3", "latentr3-sft", "NDCG@10", "RL does not harm", least=HARM),
)
VARIANTS = {
    "{}": "RL on latents",
    "{}-long": "hosts of 10 epochs",
    "{}-catalogue": "catalogue decoding",
    "{}-long-catalogue": "10 epochs, catalogue decoding",
    "catalogue-{}": "catalogue training and decoding",
}
GOALS = (
    *TITLES,
    *(
        replace(
            goal,
            first=name.format(goal.first),
            second=name.format(goal.second),
            meaning=f"{goal.meaning}, {variant}",
        )
        for name, variant in VARIANTS.items()
        for goal in _GOALS
    ),
)


def goal_table(found: dict[str, dict[str, Results]]) -> str:
    """Markdown: each goal, what each dataset shows, and whether that reaches it.

    Args:
        found: dataset → cell → its records.
    """
    rows = []
    for goal in GOALS:
        asked = "difference and its interval above zero"
        if goal.gain is not None:
            asked = f"{goal.gain:+.1%}, interval above zero"
        if goal.least is not None:
            asked = f"difference at least {goal.least}"
        pairs = {
            dataset: (results[goal.first], results[goal.second])
            for dataset, results in found.items()
            if goal.first in results and goal.second in results
        }
        found_rows = [_row(goal, dataset, *pair) for dataset, pair in pairs.items()]
        if goal.gain is not None and len(pairs) > 1:
            found_rows.append(_mean_row(goal.gain, goal.metric, pairs))
        rows += [f"| {goal.meaning} ({goal.metric}) | {asked} | {row} |" for row in found_rows]
    if not rows:
        return ""
    head = "| goal | asked | dataset | seeds | difference [95 %] | relative | reached |\n" + "|---" * 7 + "|"
    return "## Against the goal\n\n" + head + "\n" + "\n".join(rows) + "\n"


def _shared(metric: str, first: Results, second: Results) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The seeds that both have, and the means over them of each sample's value."""
    seeds = sorted(set(first.seeds) & set(second.seeds))
    return seeds, first.mean_over(metric, seeds), second.mean_over(metric, seeds)


def _mean_row(gain: float, metric: str, pairs: dict[str, tuple[Results, Results]]) -> str:
    """The mean of the datasets' relative gains, as the paper gives it, users of each resampled."""
    gains = []
    for number, (dataset, pair) in enumerate(pairs.items()):
        _, one, other = _shared(metric, *pair)
        bootstrap = ClusterBootstrap(test_users(dataset), n_resamples=2000, seed=42 + number)
        means = bootstrap.resampled_means(np.column_stack([one, other]))
        ratios = [
            np.array([one.mean() / max(other.mean(), 1e-12)]),
            means[:, 0] / np.maximum(means[:, 1], 1e-12),
        ]
        gains.append(np.concatenate(ratios) - 1)
    mean = np.mean(gains, axis=0)
    low, high = np.percentile(mean[1:], [2.5, 97.5])
    reached = "yes" if low > 0 and mean[0] >= gain else "no"
    return f"**mean of {len(pairs)}** | | | {mean[0]:+.1%} [{low:+.1%}, {high:+.1%}] | {reached}"


def _row(goal: Goal, dataset: str, first: Results, second: Results) -> str:
    shared, one, other = _shared(goal.metric, first, second)
    compared = ClusterBootstrap(test_users(dataset), n_resamples=2000, seed=42).compare(one, other)
    relative = compared.difference / max(float(np.mean(other)), 1e-12)
    if goal.least is not None:
        reached = compared.difference >= goal.least
    else:
        reached = compared.low > 0 and relative >= (goal.gain or 0.0)
    return (
        f"{DATASETS[dataset].title.split(' (')[0].split(',')[0]} | {len(shared)} | "
        f"{compared.difference:+.4f} [{compared.low:+.4f}, {compared.high:+.4f}] | {relative:+.1%} | "
        f"{'yes' if reached else 'no'}"
    )
