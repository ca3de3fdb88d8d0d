"""Novelty, diversity, popularity lift, calibration and exposure against values worked out by hand."""

import numpy as np
import pytest

from latentrec.metrics import beyond_accuracy as beyond

COUNTS = np.array([7, 3, 1, 1])
RANKED = np.array([[0, 1, 2], [3, -1, -1], [-1, -1, -1]])
HISTORIES = [np.array([0, 0]), np.array([2, 3]), np.array([1])]


def test_novelty_is_mean_self_information():
    share = (COUNTS + 1) / 16
    expected = [-np.log2(share[[0, 1]]).mean(), -np.log2(share[3]), 0.0]
    np.testing.assert_allclose(beyond.novelty_at_k(RANKED, COUNTS, 2), expected)


def test_popularity_lift_compares_the_list_with_the_history():
    lift = beyond.popularity_lift_at_k(RANKED, HISTORIES, COUNTS, 2)
    np.testing.assert_allclose(lift[:2], [5 / 7 - 1, 0.0])
    assert np.isnan(lift[2])
    assert np.isnan(beyond.popularity_lift_at_k(RANKED[:1], [np.zeros(0, int)], COUNTS, 2))[0]


def test_diversity_is_the_share_of_pairs_of_different_groups():
    groups = np.array([0, 0, 1, -1])
    np.testing.assert_allclose(beyond.diversity_at_k(RANKED, groups, 3)[0], 2 / 3)
    np.testing.assert_allclose(beyond.diversity_at_k(RANKED, groups, 2)[0], 0.0)
    assert np.isnan(beyond.diversity_at_k(RANKED, groups, 3)[1:]).all()
    unknown = np.full(4, -1)
    np.testing.assert_allclose(beyond.diversity_at_k(RANKED, unknown, 3)[0], 1.0)


def test_miscalibration_runs_from_the_same_mix_to_nothing_in_common():
    groups = np.array([0, 1, 1, 2])
    lists = np.array([[1, 2], [0, 3], [0, 1], [-1, -1]])
    histories = [np.array([1]), np.array([1, 2]), np.array([0, 0, 1, 1]), np.array([0])]
    found = beyond.miscalibration_at_k(lists, histories, groups, 2)
    np.testing.assert_allclose(found[:3], [0.0, 1.0, 0.0], atol=1e-12)
    assert np.isnan(found[3])
    half = beyond.miscalibration_at_k(np.array([[0, 1]]), [np.array([0])], groups, 2)[0]
    assert half == pytest.approx(0.5 * (0.5 * np.log2(0.5 / 0.75) + 0.5) + 0.5 * np.log2(1 / 0.75))


def test_gini_of_even_and_of_single_exposure():
    assert beyond.gini_at_k(np.array([[0, 1], [2, 3]]), 4, 2) == pytest.approx(0.0)
    assert beyond.gini_at_k(np.zeros((5, 1), int), 4, 1) == pytest.approx(0.75)
    assert beyond.gini_at_k(np.full((2, 2), -1), 4, 2) == 0.0


def test_long_tail_share():
    tail = np.array([False, False, True, True])
    np.testing.assert_allclose(beyond.long_tail_share_at_k(RANKED, tail, 3), [1 / 3, 1.0, 0.0])


def test_no_samples_give_no_values():
    empty = np.zeros((0, 3), int)
    for values in (
        beyond.novelty_at_k(empty, COUNTS, 3),
        beyond.diversity_at_k(empty, COUNTS, 3),
        beyond.miscalibration_at_k(empty, [], COUNTS, 3),
        beyond.popularity_lift_at_k(empty, [], COUNTS, 3),
    ):
        assert values.shape == (0,)
