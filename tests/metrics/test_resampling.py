"""Intervals and tests by resampling users."""

import numpy as np
import pytest

from latentrec.metrics import ClusterBootstrap, holm


def clustered_sample(rng, n_users=150, mean=0.3, spread=0.8):
    """Users with their own hit probability and number of samples; the population mean is ``mean``."""
    sizes = rng.integers(1, 6, n_users)
    rates = rng.beta(mean / spread, (1 - mean) / spread, n_users)
    users = np.repeat(np.arange(n_users), sizes)
    return users, (rng.random(len(users)) < rates[users]).astype(float)


def test_intervals_cover_the_truth_about_95_percent_of_the_time():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        users, values = clustered_sample(rng)
        interval = ClusterBootstrap(users, n_resamples=500).intervals(values[:, None])[0]
        covered += interval.low <= 0.3 <= interval.high
    assert 0.92 <= covered / 400 <= 0.975


def test_ignoring_users_would_make_the_interval_too_narrow():
    users, values = clustered_sample(np.random.default_rng(3), n_users=400)
    by_user = ClusterBootstrap(users).intervals(values[:, None])[0]
    by_sample = ClusterBootstrap(np.arange(len(users))).intervals(values[:, None])[0]
    assert by_user.high - by_user.low > 1.2 * (by_sample.high - by_sample.low)


def test_same_seed_gives_the_same_interval():
    users, values = clustered_sample(np.random.default_rng(1))
    first, again = (ClusterBootstrap(users, seed=5).intervals(values[:, None]) for _ in range(2))
    assert first == again


def test_blocks_of_resamples_give_what_one_block_gives(monkeypatch):
    users, values = clustered_sample(np.random.default_rng(1))
    whole = ClusterBootstrap(users, n_resamples=300).resampled_means(values[:, None])
    monkeypatch.setattr("latentrec.metrics.resampling.DRAWS_IN_MEMORY", 1000)
    parts = ClusterBootstrap(users, n_resamples=300).resampled_means(values[:, None])
    np.testing.assert_allclose(parts, whole)


def test_a_shift_of_every_sample_is_found_significant():
    users, values = clustered_sample(np.random.default_rng(2))
    found = ClusterBootstrap(users).compare(values + 0.1, values)
    assert found.difference == pytest.approx(0.1)
    assert found.one_sided_low > 0
    assert found.p_value < 0.01


def test_equal_models_have_p_value_one():
    users, values = clustered_sample(np.random.default_rng(2))
    found = ClusterBootstrap(users).compare(values, values)
    assert (found.difference, found.p_value) == (0.0, 1.0)


def test_permutation_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(11)
    p_values = []
    for _ in range(300):
        users = np.repeat(np.arange(60), rng.integers(1, 4, 60))
        effect = rng.normal(size=60)[users] + rng.normal(size=len(users))
        p_values.append(ClusterBootstrap(users).permutation_p_value(effect, 200))
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.09
    assert 0.42 <= np.mean(p_values) <= 0.58


def test_permutation_p_value_equals_full_enumeration():
    differences = np.array([0.5, -0.2, 0.9, 0.4, 0.1, 0.7])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    exact = np.mean(np.abs(signs @ differences) >= differences.sum() - 1e-12)
    estimate = ClusterBootstrap(np.arange(6)).permutation_p_value(differences, 40_000)
    assert estimate == pytest.approx(exact, abs=0.005)


def test_holm_equals_the_hand_calculation():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
