"""What reads the rest of the tree at once finds what reads a token of each beam at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentrec.catalog import TokenTrie
from latentrec.decoding.beam_search import READ_AHEAD, ConstrainedBeamSearch
from latentrec.decoding.d3 import D3TokenMass
from latentrec.decoding.exact_ranking import score_every_title
from latentrec.decoding.trie_tensors import ExcludedLeaves, TrieTensors
from tests.decoding.tiny import EOS, started, tiny_model

catalogues = st.lists(st.lists(st.integers(2, 4), max_size=10), min_size=1, max_size=40)
prompt_batches = st.lists(st.lists(st.integers(2, 31), min_size=1, max_size=9), min_size=1, max_size=4)
CATALOGUE_SCORES = {"length_penalty": 0.0, "renormalized": True}


def trie_of(rows):
    return TrieTensors(TokenTrie.build([[*row, EOS] for row in rows]))


@settings(max_examples=60, deadline=None)
@given(catalogues)
def test_undecided_states_are_those_with_several_titles_below(rows):
    trie = trie_of(rows)
    undecided, host = trie.undecided, trie.trie

    def visit(state, depth):
        assert undecided.depth[state] == depth
        below = []
        if host.leaf_end[state] - host.leaf_begin[state] > 1:
            below.append(state)
        for child in host.children(state).values():
            below += visit(child, depth + 1)
        assert undecided.below[state] == len(below)
        if below and below[0] == state:
            first = int(undecided.place[state])
            assert undecided.states[first : first + len(below)].tolist() == below
        else:
            assert undecided.place[state] == len(undecided)
        return below

    assert len(visit(0, 0)) == len(undecided)


@settings(max_examples=60, deadline=None)
@given(
    catalogues, prompt_batches, st.integers(0, 3), st.integers(1, 6), st.sampled_from([2, 5, 1000]), st.data()
)
def test_the_beams_are_those_of_one_token_at_a_time(rows, prompts, seed, width, states, data):
    model = tiny_model(seed=seed, scale=3.0)
    trie = trie_of(rows)
    n_leaves = trie.trie.n_leaves
    closed = [data.draw(st.lists(st.integers(0, n_leaves - 1), unique=True)) for _ in prompts]
    excluded = ExcludedLeaves.of(closed, n_leaves, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    mass = torch.rand(len(prompts), n_leaves, generator=generator).softmax(dim=1)
    for options in (
        {},
        {"excluded": excluded},
        {"assistant": D3TokenMass.of_leaves(mass, trie, excluded), "alpha": 0.5, "excluded": excluded},
    ):
        found, expected = (
            ConstrainedBeamSearch(trie, beam_width=width, read_ahead=most, **CATALOGUE_SCORES).search(
                model, started(model, prompts), **options
            )
            for most in (states, 0)
        )
        assert found.leaves.tolist() == expected.leaves.tolist()
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("users", [1, 3])
def test_a_long_shared_beginning_takes_one_pass_instead_of_one_a_token(users, monkeypatch):
    model = tiny_model()
    series = [2, 3, 4, 5, 6, 7, 8, 9]
    trie = trie_of([[first, *series, volume] for first in (10, 11) for volume in range(2, 8)])
    assert len(trie.undecided) <= READ_AHEAD
    start = started(model, [[5, 6, 7 + user] for user in range(users)])
    passes = []
    run = model.backbone.run
    monkeypatch.setattr(model.backbone, "run", lambda *a, **k: passes.append(1) or run(*a, **k))

    def searched(**options):
        passes.clear()
        ConstrainedBeamSearch(trie, beam_width=4, **CATALOGUE_SCORES, **options).search(model, start)
        return len(passes)

    assert searched() == 1
    assert searched(read_ahead=0) == len(series) + 1


def test_titles_that_are_all_decided_are_not_read():
    model = tiny_model()
    trie = trie_of([[2, 3, 4], [3, 4, 5], [4, 5, 6]])
    start = started(model, [[5, 6], [7]])
    search = ConstrainedBeamSearch(trie, beam_width=3, **CATALOGUE_SCORES)
    model.backbone.run = None
    assert sorted(search.search(model, start).leaves[0].tolist()) == [0, 1, 2]


def test_scoring_every_title_reads_undecided_states_only(monkeypatch):
    model = tiny_model()
    trie = trie_of([[first, 2, 3, 4, 5, *([6] if first < 4 else [])] for first in (2, 3, 4)] + [[2, 2, 3, 9]])
    start = started(model, [[5, 6, 7]])
    read = []
    run = model.backbone.run
    monkeypatch.setattr(
        model.backbone, "run", lambda embeds, *a: read.append(embeds.shape[1]) or run(embeds, *a)
    )
    score_every_title(model, start, trie, **CATALOGUE_SCORES)
    assert sum(read) == len(trie.undecided) - 1 == 3
