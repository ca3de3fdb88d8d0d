"""Metrics against cases computed by hand."""

import math

import numpy as np
import pytest

from latentrec.metrics import (
    coverage_at_k,
    first_of_each_group,
    hit_rate_at_k,
    mrr_at_k,
    ndcg_at_k,
    rank_of_target,
    repeat_share_at_k,
)

RANKED = np.array([[7, 3, 5], [1, 2, -1], [4, 9, 8], [2, 2, 6]])
TARGETS = np.array([5, 2, 0, 2])


def test_rank_counts_from_one_and_is_zero_when_absent():
    assert rank_of_target(RANKED, TARGETS).tolist() == [3, 2, 0, 1]


def test_a_repeated_entry_counts_at_its_first_place():
    assert rank_of_target(np.array([[2, 5, 2]]), np.array([2])).tolist() == [1]


def test_metrics_equal_the_hand_calculation():
    ranks = np.array([3, 2, 0, 1])
    assert hit_rate_at_k(ranks, 2).tolist() == [0, 1, 0, 1]
    assert ndcg_at_k(ranks, 10) == pytest.approx([0.5, 1 / math.log2(3), 0, 1])
    assert mrr_at_k(ranks, 2) == pytest.approx([0, 0.5, 0, 1])


def test_empty_lists_hit_nothing():
    assert rank_of_target(np.zeros((2, 0), int), np.array([1, 2])).tolist() == [0, 0]


def test_repeated_titles_are_dropped_before_ranking():
    groups = np.array([0, 0, 1, 2, 1])
    ranked = np.array([[1, 0, 4, 2, 3], [3, -1, -1, -1, -1]])
    assert first_of_each_group(ranked, groups, 3).tolist() == [[0, 1, 2], [2, -1, -1]]
    assert first_of_each_group(ranked, groups, 2).tolist() == [[0, 1], [2, -1]]


def test_coverage_is_the_share_of_items_shown():
    assert coverage_at_k(RANKED, 10, 2) == pytest.approx(6 / 10)


def test_repeat_share_looks_at_each_users_own_history():
    histories = [np.array([3, 7]), np.array([], int), np.array([8]), np.array([2])]
    assert repeat_share_at_k(RANKED, histories, 3) == pytest.approx([2 / 3, 0, 1 / 3, 2 / 3])
    assert repeat_share_at_k(RANKED, histories, 2) == pytest.approx([1, 0, 0, 1])
