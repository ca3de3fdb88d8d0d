"""Pure functions of ranks and ratings; bootstrap and paired tests by user."""

from latentrec.metrics.ranking import (
    coverage_at_k,
    first_of_each_group,
    hit_rate_at_k,
    mrr_at_k,
    ndcg_at_k,
    rank_of_target,
    ranking_figures,
    repeat_share_at_k,
)
from latentrec.metrics.resampling import ClusterBootstrap, Interval, holm

__all__ = [
    "ClusterBootstrap",
    "Interval",
    "coverage_at_k",
    "first_of_each_group",
    "hit_rate_at_k",
    "holm",
    "mrr_at_k",
    "ndcg_at_k",
    "rank_of_target",
    "ranking_figures",
    "repeat_share_at_k",
]
