"""Pure functions of ranks and ratings; bootstrap and paired tests by user."""

from latentrec.metrics.ranking import (
    coverage_at_k,
    first_of_each_group,
    hit_rate_at_k,
    mrr_at_k,
    ndcg_at_k,
    rank_of_target,
    repeat_share_at_k,
)
from latentrec.metrics.rating import absolute_error, mae, squared_error
from latentrec.metrics.resampling import ClusterBootstrap, Comparison, Interval, holm

__all__ = [
    "ClusterBootstrap",
    "Comparison",
    "Interval",
    "absolute_error",
    "coverage_at_k",
    "first_of_each_group",
    "hit_rate_at_k",
    "holm",
    "mae",
    "mrr_at_k",
    "ndcg_at_k",
    "rank_of_target",
    "repeat_share_at_k",
    "squared_error",
]
