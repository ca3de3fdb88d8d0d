"""A title model as a recommender: lists of items, exclusion, changed catalogues, the d3 host."""

import copy

import numpy as np
import pytest
import torch

from latentrec.catalog import Catalogue
from latentrec.decoding import DecodingOptions
from latentrec.decoding.title_recommender import TitleRecommender
from latentrec.models.latentr3 import LatentR3Model
from latentrec.models.presets import build_preset
from latentrec.prompts import NextItemPrompt
from tests.errors import refused

TITLES = ["Blue Pen", "Red Pen", "Blue Pen", "Blue Pencil", 'The "Best" Pen', "Ink, 3 oz.", "Pen", "Écrin ✒"]
COUNTS = np.array([4, 9, 7, 1, 3, 3, 2, 0])
HISTORIES = [[0], [1, 2, 3], [5, 4, 6, 0, 1], []]


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue.from_items([f"B{i}" for i in range(len(TITLES))], TITLES, COUNTS)


@pytest.fixture(scope="module")
def parts(catalogue):
    backbone, tokenizer = build_preset("micro", catalogue.titles, seed=0)
    torch.manual_seed(0)
    return LatentR3Model(backbone, n_latents=1).eval(), NextItemPrompt(tokenizer)


@pytest.fixture
def make(parts, catalogue):
    def build(assistant=None, catalogue=catalogue, **options):
        chosen = DecodingOptions(**{"decoding": "bigrec"} | options)
        return TitleRecommender(parts[0], parts[1], catalogue, options=chosen, assistant=assistant)

    return build


class ConstantAssistant:
    """Prefers items in a fixed order; the last item is unknown to it."""

    def __init__(self, logits):
        self._logits = np.asarray(logits, np.float32)

    def item_logits(self, histories):
        return np.tile(self._logits, (len(histories), 1))


def test_lists_hold_catalogue_items_once_best_first(make):
    ranking = make().rank(HISTORIES, 8)
    for items, scores in zip(ranking.item_ids, ranking.scores, strict=True):
        assert sorted(items.tolist()) == list(range(8))
        assert (np.diff(scores) <= 0).all()


def test_a_title_expands_to_its_items_by_popularity(make):
    for items in make().rank(HISTORIES, 8).item_ids.tolist():
        assert items.index(2) + 1 == items.index(0)


def test_exact_mode_and_wide_beams_agree(make):
    wide, exact = (make(beam_width=width).rank(HISTORIES, 8) for width in (10, "exact"))
    assert wide.item_ids.tolist() == exact.item_ids.tolist()
    np.testing.assert_allclose(wide.scores, exact.scores, atol=1e-5)


def test_few_beams_give_short_lists_padded_with_minus_one(make):
    ranking = make(beam_width=2).rank([[3]], 8)
    filled = int((ranking.item_ids[0] >= 0).sum())
    assert 2 <= filled <= 3
    assert (ranking.item_ids[0, filled:] == -1).all()
    assert np.isneginf(ranking.scores[0, filled:]).all()


def test_excluded_items_are_absent_and_siblings_of_the_same_title_stay(make):
    ranking = make().rank(HISTORIES, 8, exclude=[[0], [1, 2, 3], [0, 2], []])
    assert 0 not in ranking.item_ids[0]
    assert 2 in ranking.item_ids[0]
    assert not {1, 2, 3} & set(ranking.item_ids[1].tolist())
    assert 0 in ranking.item_ids[1]
    assert not {0, 2} & set(ranking.item_ids[2].tolist())
    assert (ranking.item_ids[3] >= 0).all()


def test_excluding_inside_the_search_frees_beams_for_other_titles(make):
    narrow = make(beam_width=1)
    best = narrow.rank([[3]], 1).item_ids[0, 0]
    closed = [[item for item in range(8) if TITLES[item] == TITLES[best]]]
    second = narrow.rank([[3]], 1, exclude=closed).item_ids[0, 0]
    assert second >= 0
    assert second not in closed[0]


def test_users_may_come_in_any_order_and_batch(make):
    recommender = make()
    together = recommender.rank(HISTORIES, 5)
    for index, history in enumerate(HISTORIES):
        assert recommender.rank([history], 5).item_ids[0].tolist() == together.item_ids[index].tolist()


def test_a_new_catalogue_gives_a_new_trie_without_training(make):
    newer = Catalogue.from_items(["B1", "N1", "N2"], ["Red Pen", "Brand New Stapler", "Red Pencil"])
    ranking = make(catalogue=newer).rank([[0], [1]], 3)
    assert [sorted(row) for row in ranking.item_ids.tolist()] == [[0, 1, 2]] * 2


def test_titles_that_are_cut_to_the_same_tokens_share_a_place(parts):
    model, prompt = parts
    short = NextItemPrompt(prompt.tokenizer, max_title_tokens=4)
    titles = ["Extremely long title, part one", "Extremely long title, part two", "Pen"]
    long_titles = Catalogue.from_items(["A", "B", "C"], titles, np.array([1, 5, 0]))
    recommender = TitleRecommender(model, short, long_titles)
    items = recommender.rank([[2]], 3).item_ids[0].tolist()
    assert sorted(items) == [0, 1, 2]
    assert items.index(1) + 1 == items.index(0)


def test_the_assistant_decides_when_alpha_is_zero(make, catalogue):
    logits = np.array([0.0, 2.0, 0.5, 1.0, 5.0, 4.0, 3.0, -np.inf])
    ranking = make(decoding="d3", assistant=ConstantAssistant(logits), alpha=0.0).rank(HISTORIES, 8)
    mass = np.zeros(catalogue.n_titles)
    known = np.where(np.isfinite(logits), logits, 0.0)
    np.add.at(mass, catalogue.title_ids, np.exp(known) / np.exp(known).sum())
    expected = [t for title in np.argsort(-mass) for t in catalogue.items_of_title(int(title)).tolist()]
    for items, scores in zip(ranking.item_ids.tolist(), ranking.scores, strict=True):
        assert items[:6] == expected[:6]
        assert np.exp(scores[0]) == pytest.approx(mass.max(), rel=1e-4)


def test_alpha_one_is_the_model_without_length_normalization(make):
    logits = np.arange(8.0)
    assisted = make(decoding="d3", assistant=ConstantAssistant(logits), alpha=1.0).rank(HISTORIES, 8)
    plain = make().rank(HISTORIES, 8)
    lengths = {}
    recommender = make()
    for leaf, items in enumerate(recommender._items_of_leaf):
        for item in items.tolist():
            lengths[item] = int(recommender.trie.trie.leaf_lengths[leaf])
    for row in range(len(HISTORIES)):
        sums = {
            i: s * lengths[i] for i, s in zip(plain.item_ids[row].tolist(), plain.scores[row], strict=True)
        }
        for item, score in zip(assisted.item_ids[row].tolist(), assisted.scores[row], strict=True):
            assert score == pytest.approx(sums[item], abs=1e-4)


@pytest.mark.parametrize("beam_width", [8, "exact"])
def test_d3_catalogue_mixes_two_probabilities_over_titles(make, catalogue, beam_width):
    logits = np.array([0.0, 2.0, 0.5, 1.0, 5.0, 4.0, 3.0, 2.5])
    by_assistant = np.zeros(catalogue.n_titles)
    np.add.at(by_assistant, catalogue.title_ids, np.exp(logits) / np.exp(logits).sum())
    plain = make(decoding="catalogue", beam_width="exact").rank(HISTORIES, 8)
    mixed = make(
        decoding="d3-catalogue", assistant=ConstantAssistant(logits), alpha=0.3, beam_width=beam_width
    )
    ranking = mixed.rank(HISTORIES, 8)
    for row in range(len(HISTORIES)):
        own = dict(zip(plain.item_ids[row].tolist(), plain.scores[row].tolist(), strict=True))
        for item, score in zip(ranking.item_ids[row].tolist(), ranking.scores[row].tolist(), strict=True):
            expected = 0.3 * own[item] + 0.7 * np.log(by_assistant[catalogue.title_ids[item]])
            assert score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("decoding", ["catalogue", "d3-catalogue"])
@pytest.mark.parametrize("beam_width", [2, 8, "exact"])
@pytest.mark.parametrize("exclude", [None, [[2], [0, 1], [], [7]]])
def test_output_layer_of_a_large_vocabulary_is_computed_for_the_titles_tokens_only(
    make, parts, catalogue, decoding, beam_width, exclude
):
    """A vocabulary of which the titles use a part: the same lists and scores."""
    model, prompt = parts
    large = copy.deepcopy(model)
    vocabulary = 4 * model.backbone.vocab_size
    large.backbone.model.resize_token_embeddings(vocabulary, mean_resizing=False)
    large.backbone.vocab_size = vocabulary
    options = DecodingOptions(decoding=decoding, beam_width=beam_width, alpha=0.4)
    assistant = ConstantAssistant([0.0, 2.0, 0.5, 1.0, 5.0, 4.0, 3.0, 2.5]) if options.is_mixture else None
    some = TitleRecommender(large, prompt, catalogue, options=options, assistant=assistant)
    assert some._output_tokens is not None
    every = TitleRecommender(large, prompt, catalogue, options=options, assistant=assistant)
    every._output_tokens = None
    found, expected = (one.rank(HISTORIES, 8, exclude=exclude) for one in (some, every))
    assert found.item_ids.tolist() == expected.item_ids.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_scores_over_the_whole_vocabulary_need_the_whole_output_layer(make):
    assert make(decoding="bigrec")._output_tokens is None


@pytest.mark.parametrize(("mixture", "alone"), [("d3-catalogue", "catalogue")])
def test_alpha_one_needs_no_assistant_and_is_the_model_alone(make, mixture, alone):
    first = make(decoding=mixture).rank(HISTORIES, 8)
    second = make(decoding=alone).rank(HISTORIES, 8)
    assert first.item_ids.tolist() == second.item_ids.tolist()
    np.testing.assert_array_equal(first.scores, second.scores)


def test_titles_of_vanished_items_are_read(make):
    recommender = make()
    known = recommender.rank([[3]], 8)
    same = recommender.rank([[]], 8, history_titles=[[TITLES[3]]])
    assert known.item_ids.tolist() == same.item_ids.tolist()
    np.testing.assert_allclose(known.scores, same.scores, atol=1e-5)
    gone = recommender.rank([[3]], 8, history_titles=[["Fountain pen, discontinued", TITLES[3]]])
    assert not np.allclose(gone.scores, known.scores)


def test_timings_split_a_request_in_phases(make):
    recommender = make()
    recommender.rank(HISTORIES, 5)
    assert all(seconds > 0 for seconds in recommender.timings.seconds.values())
    recommender.timings.reset()
    assert sum(recommender.timings.seconds.values()) == 0


@pytest.mark.parametrize(
    ("settings", "code", "named"),
    [
        ({"decoding": "d4"}, "config.bad_value", ("decoding", "'d4'", "d3-catalogue")),
        ({"decoding": "d3", "alpha": 0.9}, "decoding.needs_assistant", ("d3", "0.9")),
        ({"decoding": "d3-catalogue", "alpha": 0.0}, "decoding.needs_assistant", ("d3-catalogue", "0")),
        ({"beam_width": 0}, "config.bad_value", ("beam_width", "0")),
    ],
)
def test_wrong_settings_are_refused(make, settings, code, named):
    with refused(code, *named):
        make(**settings)
