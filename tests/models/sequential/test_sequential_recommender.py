"""ID-based recommenders over a catalogue that has changed since training."""

import numpy as np
import pytest
import torch

from latentrec.catalog import Catalogue
from latentrec.models.popularity import Popularity
from latentrec.models.sequential import SASRec, SequentialRecommender, pad_right
from latentrec.models.top_k import top_items


def catalogue_of(keys, counts):
    return Catalogue.from_items(keys, [f"title {key}" for key in keys], np.array(counts, np.int64))


@pytest.fixture
def trained():
    torch.manual_seed(0)
    keys = [f"k{i}" for i in range(12)]
    return SASRec(n_items=12, hidden_size=16, inner_dim=32, max_length=5).eval(), catalogue_of(
        keys, [3] * 11 + [0]
    )


def brute_force(encoder, history):
    items, lengths = pad_right([np.array(history)], encoder.n_items, encoder.max_length)
    with torch.no_grad():
        return encoder.score(encoder.last_states(items, lengths))[0].numpy()


def test_ranking_equals_sorting_all_scores_whatever_the_chunk(trained):
    encoder, catalogue = trained
    recommender = SequentialRecommender(encoder, catalogue)
    histories = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 1]]
    whole = recommender.rank(histories, 11)
    recommender.users_per_chunk = 1
    chunked = recommender.rank(histories, 11)
    assert np.array_equal(whole.item_ids, chunked.item_ids)
    for row, history in enumerate(histories):
        scores = brute_force(encoder, history)[:11]
        assert np.array_equal(whole.item_ids[row], np.argsort(-scores, kind="stable"))
        np.testing.assert_allclose(whole.scores[row], np.sort(scores)[::-1], rtol=1e-5, atol=1e-6)


def test_items_are_matched_by_key_and_unknown_ones_are_never_listed(trained):
    encoder, catalogue = trained
    today = catalogue_of(["new", "k3", "k0", "k11", "k5"], [9, 9, 9, 9, 9])
    recommender = SequentialRecommender(encoder, catalogue, today)
    assert recommender.unscorable.tolist() == [True, False, False, True, False]
    ranking = recommender.rank([[1, 0, 2]], 5)
    scores = brute_force(encoder, [3, 0])
    expected = sorted([1, 2, 4], key=lambda item: -scores[{1: 3, 2: 0, 4: 5}[item]])
    assert ranking.item_ids[0].tolist() == [*expected, -1, -1]
    assert np.isneginf(ranking.scores[0, 3:]).all()


def test_excluded_items_are_left_out(trained):
    encoder, catalogue = trained
    recommender = SequentialRecommender(encoder, catalogue)
    listed = recommender.rank([[1, 2], [3]], 12, exclude=[[1, 2], [3, 4, 5]]).item_ids
    assert not set(listed[0]) & {1, 2}
    assert not set(listed[1]) & {3, 4, 5}


def test_a_history_without_known_items_gets_training_popularity(trained):
    encoder, _ = trained
    catalogue = catalogue_of([f"k{i}" for i in range(12)], [0, 5, 9, *[1] * 9])
    recommender = SequentialRecommender(encoder, catalogue)
    ranking = recommender.rank([[], [0]], 2)
    assert ranking.item_ids.tolist() == [[2, 1], [2, 1]]


def test_popularity_breaks_ties_by_item_id_also_at_the_cut():
    model = Popularity(np.array([1, 2, 2, 2, 1], np.float32))
    ranking = model.rank([[0], [1]], 2, exclude=[[], [1]])
    assert ranking.item_ids.tolist() == [[1, 2], [2, 3]]
    assert ranking.scores.tolist() == [[2, 2], [2, 2]]


def test_equal_scores_are_listed_by_item_id():
    ranking = top_items(torch.tensor([[0.5, 1.0, 0.5, 1.0]]), 4)
    assert ranking.item_ids.tolist() == [[1, 3, 0, 2]]


def test_lists_shorter_than_k_are_filled_with_minus_one():
    ranking = top_items(torch.tensor([[0.5, -torch.inf]]), 4)
    assert ranking.item_ids.tolist() == [[0, -1, -1, -1]]
