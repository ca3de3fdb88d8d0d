"""The trie against a dictionary of dictionaries, on fuzzed sequences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentrec.catalog import ROOT, TokenTrie
from tests.errors import refused

EOS = 99
bodies = st.lists(st.lists(st.integers(0, 6), max_size=7), min_size=1, max_size=40)


def paths(trie, state=ROOT, path=()):
    """Every token path from the root to a leaf, depth first, with the leaf's state."""
    children = trie.children(state)
    if not children:
        yield path, state
    for token, child in children.items():
        yield from paths(trie, child, (*path, token))


@settings(max_examples=200, deadline=None)
@given(bodies)
def test_paths_are_exactly_the_sequences(rows):
    sequences = [[*row, EOS] for row in rows]
    trie = TokenTrie.build(sequences)
    found = list(paths(trie))
    assert [path for path, _ in found] == sorted({tuple(row) for row in sequences})
    for leaf, (path, state) in enumerate(found):
        assert trie.leaf_begin[state] == leaf
        assert trie.leaf_lengths[leaf] == len(path)
        assert all(tuple(sequences[i]) == path for i in trie.sequences_of_leaf(leaf))
    assert sorted(trie.leaf_sequences.tolist()) == list(range(len(sequences)))
    assert trie.n_leaves == len(found)


@settings(max_examples=100, deadline=None)
@given(bodies)
def test_leaves_below_a_state_are_a_contiguous_run(rows):
    trie = TokenTrie.build([[*row, EOS] for row in rows])
    for state in range(trie.n_states):
        below = [trie.leaf_begin[leaf] for _, leaf in paths(trie, state)]
        assert below == list(range(trie.leaf_begin[state], trie.leaf_end[state]))


def test_titles_that_are_prefixes_of_others_and_duplicates():
    trie = TokenTrie.build([[1, 2, EOS], [1, EOS], [1, 2, 3, EOS], [1, EOS]])
    assert trie.n_leaves == 3
    assert trie.leaf_of_sequence().tolist()[1] == trie.leaf_of_sequence().tolist()[3]
    assert trie.n_states == 1 + 1 + 2 + 2 + 1
    assert trie.depth == 4


def test_parents_and_levels_agree_with_the_edges():
    trie = TokenTrie.build([[1, 2, EOS], [4, EOS], [1, 3, 5, EOS]])
    for state in range(trie.n_states):
        assert all(trie.parents[child] == state for child in trie.children(state).values())
    assert np.diff(trie.level_offsets).tolist() == [1, 2, 3, 2, 1]


@pytest.mark.parametrize(
    ("sequences", "code", "named"),
    [
        ([], "catalog.empty", ""),
        ([[1], []], "catalog.bad_sequence", "sequence 1"),
        ([[1, 2], [1]], "catalog.bad_sequence", "sequence 1"),
    ],
)
def test_sequences_that_make_no_trie_are_refused(sequences, code, named):
    with refused(code, named):
        TokenTrie.build(sequences)
