"""Baselines against hand calculations, and that an unreadable answer is never a hit."""

import numpy as np
import pytest

from latentrec.metrics.rating import confusion, nearest_star, rating_errors
from latentrec.models.rating.baselines import (
    BiasModel,
    GlobalMean,
    GlobalMedian,
    ItemMean,
    RatingTriples,
    UserMean,
)
from latentrec.models.rating.matrix_factorization import MatrixFactorization

TRAIN = RatingTriples(
    users=np.array([0, 0, 1, 1, 1]),
    items=np.array([0, 1, 0, 1, 2]),
    ratings=np.array([5.0, 3.0, 4.0, 2.0, 1.0]),
    n_users=3,
    n_items=4,
)
USERS, ITEMS = np.array([0, 1, 2]), np.array([1, 2, 3])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (GlobalMean(), [3.0, 3.0, 3.0]),
        (GlobalMedian(), [3.0, 3.0, 3.0]),
        (UserMean(), [4.0, 7 / 3, 3.0]),
        (ItemMean(), [2.5, 1.0, 3.0]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_means_and_medians_are_those_of_training_with_the_global_mean_for_strangers(model, expected):
    model.fit(TRAIN)
    assert model.predict(USERS, ITEMS) == pytest.approx(expected)


def test_bias_model_is_the_damped_formula():
    model = BiasModel(item_damping=2.0, user_damping=1.0)
    model.fit(TRAIN)
    b_item = np.array([(2 + 1) / 4, (0 - 1) / 4, -2 / 3, 0.0])
    rest = TRAIN.ratings - 3.0 - b_item[TRAIN.items]
    b_user = np.array([rest[:2].sum() / 3, rest[2:].sum() / 4, 0.0])
    assert model.predict(USERS, ITEMS) == pytest.approx(3.0 + b_user[USERS] + b_item[ITEMS])


def low_rank_ratings(seed=0, n_users=60, n_items=40):
    rng = np.random.default_rng(seed)
    taste, kind = rng.normal(size=(n_users, 2)), rng.normal(size=(n_items, 2))
    users, items = (values.ravel() for values in np.meshgrid(np.arange(n_users), np.arange(n_items)))
    ratings = 3.0 + (taste[users] * kind[items]).sum(axis=1)
    part = rng.permutation(len(ratings))
    cuts = np.split(part, [int(0.6 * len(part)), int(0.8 * len(part))])
    return [RatingTriples(users[cut], items[cut], ratings[cut], n_users, n_items) for cut in cuts]


def test_factorization_finds_a_low_rank_structure_that_biases_cannot():
    train, valid, test = low_rank_ratings()
    model, bias = MatrixFactorization(rank=2, validation=valid, regularization=0.02), BiasModel()
    model.fit(train)
    bias.fit(train)
    errors = [np.abs(m.predict(test.users, test.items) - test.ratings).mean() for m in (model, bias)]
    assert errors[0] < 0.3 * errors[1]


def test_factorization_falls_back_to_biases_where_factors_only_fit_noise():
    rng = np.random.default_rng(1)
    train, valid = (
        RatingTriples(rng.integers(0, 50, 300), rng.integers(0, 50, 300), rng.normal(3, 1, 300), 50, 50)
        for _ in range(2)
    )
    model, bias = MatrixFactorization(validation=valid, regularization=1e-3), BiasModel()
    model.fit(train)
    bias.fit(train)
    assert model.predict(valid.users, valid.items) == pytest.approx(bias.predict(valid.users, valid.items))


def test_factorization_is_repeatable():
    train, valid, test = low_rank_ratings()
    found = []
    for _ in range(2):
        model = MatrixFactorization(validation=valid)
        model.fit(train)
        found.append(model.predict(test.users, test.items))
    assert (found[0] == found[1]).all()


def test_unparsable_prediction_is_never_scored_as_correct():
    truth = np.array([4.0, 4.0, 2.0])
    fallback = np.array([4.0, 3.0, 4.0])  # the first equals the truth by chance
    errors = rating_errors(np.array([np.nan, np.nan, np.nan]), truth, fallback)
    assert errors.exact.sum() == 0
    assert errors.unparsable.tolist() == [1, 1, 1]
    assert errors.absolute.tolist() == [0.0, 1.0, 2.0]  # the fallback's, not 0 as in the published evaluation
    table = confusion(np.full(3, np.nan), truth)
    assert np.trace(table[:, :5]) == 0
    assert table[:, 5].tolist() == [0, 1, 0, 2, 0]


def test_model_that_never_answers_equals_its_fallback():
    rng = np.random.default_rng(0)
    truth, fallback = rng.uniform(1, 5, 50), rng.uniform(1, 5, 50)
    silent = rating_errors(np.full(50, np.nan), truth, fallback)
    assert silent.absolute == pytest.approx(rating_errors(fallback, truth, fallback).absolute)


def test_readable_predictions_are_scored_as_they_are():
    errors = rating_errors(np.array([4.4, 1.0]), np.array([4.0, 5.0]), np.array([4.0, 5.0]))
    assert errors.absolute == pytest.approx([0.4, 4.0])
    assert errors.squared == pytest.approx([0.16, 16.0])
    assert errors.exact.tolist() == [1.0, 0.0]


def test_fallback_must_be_there_and_shapes_must_agree():
    with pytest.raises(ValueError, match="fallback"):
        rating_errors(np.array([1.0]), np.array([1.0]), np.array([np.nan]))
    with pytest.raises(ValueError, match=r"\(2,\).*\(1,\)"):
        rating_errors(np.array([1.0, 2.0]), np.array([1.0]), np.array([1.0]))


def test_confusion_counts_by_star_and_cuts_to_the_scale():
    table = confusion(np.array([4.5, 0.2, 7.0, 2.4]), np.array([5.0, 1.0, 5.0, 3.0]))
    expected = np.zeros((5, 6), int)
    expected[4, 4], expected[0, 0], expected[2, 1] = 2, 1, 1
    assert (table == expected).all()
    assert nearest_star(np.array([2.5, 3.49])).tolist() == [3.0, 3.0]
