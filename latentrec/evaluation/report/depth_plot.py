"""Quality over depth as a stand-alone SVG file, so that Markdown pages can show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentrec.core.charts import depth_chart, standalone
from latentrec.metrics import Interval


@dataclass(frozen=True)
class DepthPoint:
    """One depth: metrics averaged over initial states, the interval by user, and what it costs.

    Attributes:
        spread: standard deviation of NDCG over the seeds of the initial state.
        top1_agreement: share of samples whose first item is the same under two seeds.
        latency_ms: median time of one user's forward and scoring, on one thread.
    """

    depth: int
    ndcg: float
    low: float
    high: float
    hit_rate: float
    spread: float
    top1_agreement: float
    latency_ms: float


def depth_plot(points: Sequence[DepthPoint], *, k: int, split: str, mean_steps: int) -> str:
    """NDCG with its interval by user at each depth, on a logarithmic axis; μ is marked."""
    rows = [Interval(point.ndcg, point.low, point.high) for point in points]
    title = f"NDCG@{k} ({split}), 95 % by user"
    return standalone(depth_chart(title, [point.depth for point in points], rows, mark=mean_steps))
