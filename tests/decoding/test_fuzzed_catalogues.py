"""Whatever the titles look like, what comes out is a title of the catalogue, and none comes twice."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentrec.catalog import Catalogue
from latentrec.decoding import DecodingOptions
from latentrec.decoding.title_recommender import TitleRecommender, title_sequences
from latentrec.models.latentr3 import LatentR3Model
from latentrec.models.presets import build_preset
from latentrec.prompts import NextItemPrompt
from tests.fixtures.slow_figures import record_figure

titles = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=30),
        st.sampled_from(
            ["a", "ab", "abc", "abcd", '"', '""', "\n", 'x"\n', "\\", "<|endoftext|>", "é", "e\u0301"]
        ),
        st.text(alphabet='ab"\n ', min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=60,
)


@pytest.fixture(scope="module")
def parts():
    backbone, tokenizer = build_preset("micro", ["Blue Pen", "Red Pen", "abc"] * 20, seed=0)
    torch.manual_seed(0)
    return LatentR3Model(backbone, n_latents=1).eval(), NextItemPrompt(tokenizer)


def random_titles(n, seed):
    """Series, prefixes of each other, one-word titles, quotes, newlines, emoji, combining marks."""
    rng = np.random.default_rng(seed)
    words = [
        "Pen",
        "Ink",
        "Blue",
        "Über",
        "“Best”",
        'a"b',
        "new\nline",
        "✒️",
        "naïve",
        "e\u0301",
        "3-Pack",
        "日本",
        "x",
    ]
    found: dict[str, None] = {}
    while len(found) < n:
        length = int(rng.integers(1, 7))
        title = " ".join(rng.choice(words, length))
        if rng.random() < 0.4:
            title += f" Vol. {rng.integers(1, n)}"
        found[title] = None
    return list(found)


def check_lists(recommender, catalogue, histories, k):
    ranking = recommender.rank(histories, k)
    beams = 0
    for items in ranking.item_ids:
        kept = items[items >= 0]
        assert len(kept)
        assert kept.max() < catalogue.n_items
        assert len(set(kept.tolist())) == len(kept)
        beams += len(set(recommender._leaf_of_item[kept.tolist()].tolist()))
    return beams


@settings(max_examples=60, deadline=None)
@given(titles, st.integers(0, 2**16))
def test_fuzzed_titles_are_recommended_once_or_not_at_all(parts, rows, seed):
    catalogue = Catalogue.from_items([str(i) for i in range(len(rows))], rows)
    recommender = TitleRecommender(parts[0], parts[1], catalogue)
    rng = np.random.default_rng(seed)
    histories = [rng.integers(0, len(rows), rng.integers(0, 5)).tolist() for _ in range(3)]
    check_lists(recommender, catalogue, histories, catalogue.n_items)
    sequences = title_sequences(catalogue, parts[1])
    for leaf in range(recommender.trie.trie.n_leaves):
        tokens = {tuple(sequences[title]) for title in recommender.trie.trie.sequences_of_leaf(leaf)}
        assert len(tokens) == 1


@settings(max_examples=60, deadline=None)
@given(titles)
def test_every_title_can_be_reached(parts, rows):
    catalogue = Catalogue.from_items([str(i) for i in range(len(rows))], rows)
    recommender = TitleRecommender(
        parts[0], parts[1], catalogue, options=DecodingOptions(beam_width=len(rows))
    )
    ranking = recommender.rank([[0]], len(rows))
    assert sorted(ranking.item_ids[0].tolist()) == list(range(len(rows)))


def test_a_token_outside_the_trie_is_never_free(parts):
    """A model that is sure of a token which no title continues with still gives titles only."""
    model, prompt = parts
    catalogue = Catalogue.from_items(["A", "B", "C"], ["Blue Pen", "Red Pen", "Red"])
    with torch.no_grad():
        bias = model.backbone.model.lm_head.weight.clone()
        model.backbone.model.lm_head.weight.zero_()
        recommender = TitleRecommender(model, prompt, catalogue, options=DecodingOptions(beam_width=2))
        check_lists(recommender, catalogue, [[0], [1, 2], []], 3)
        model.backbone.model.lm_head.weight.copy_(bias)


@pytest.mark.slow
def test_hundred_thousand_beams_over_hundred_thousand_titles(parts):
    rows = random_titles(100_000, seed=1)
    catalogue = Catalogue.from_items([str(i) for i in range(len(rows))], rows)
    recommender = TitleRecommender(parts[0], parts[1], catalogue)
    assert recommender.trie.trie.n_leaves > 90_000
    rng = np.random.default_rng(0)
    beams = 0
    while beams < 100_000:
        histories = [rng.integers(0, len(rows), rng.integers(0, 6)).tolist() for _ in range(256)]
        beams += check_lists(recommender, catalogue, histories, 10)
    record_figure(
        "beams decoded over a fuzzed catalogue of 100,000 titles", f"{beams:,}; none outside, none twice"
    )
