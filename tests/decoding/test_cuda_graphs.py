"""Decoding steps in fixed slots give the search the same titles and scores; run here without a graph."""

import pytest
import torch

from latentrec.catalog import TokenTrie
from latentrec.decoding import cuda_graphs
from latentrec.decoding.beam_search import ConstrainedBeamSearch
from latentrec.decoding.cuda_graphs import GraphedModel, GraphState
from latentrec.decoding.trie_tensors import TrieTensors
from tests.decoding.tiny import EOS, started, tiny_model

TITLES = [[2 + (i * j) % 7 for j in range(1, 2 + i % 6)] + [EOS] for i in range(1, 80)]
PROMPTS = [[5, 9, 4, 11], [7, 3], [12, 6, 8, 10, 2]]


@pytest.mark.parametrize("renormalized", [False, True])
@pytest.mark.parametrize("n_latents", [0, 1, 2])
def test_search_in_slots_equals_the_search_without(n_latents, renormalized):
    model = tiny_model(n_latents=n_latents, scale=3.0)
    trie = TrieTensors(TokenTrie.build(TITLES))
    search = ConstrainedBeamSearch(trie, beam_width=6, length_penalty=0.5, renormalized=renormalized)
    expected = search.search(model, started(model, PROMPTS))
    graphed = GraphedModel(model, capture=False)
    for _ in range(2):  # the second time the slots hold another search's keys and values
        found = search.search(graphed, started(model, PROMPTS))
        assert torch.equal(found.leaves, expected.leaves)
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=1e-5)
    assert len(graphed._graphs) == 1


def test_search_longer_than_the_slots_goes_on_without_them(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "STEPS", 2)
    model = tiny_model(scale=3.0)
    search = ConstrainedBeamSearch(TrieTensors(TokenTrie.build(TITLES)), beam_width=6)
    expected = search.search(model, started(model, PROMPTS))
    found = search.search(GraphedModel(model, capture=False), started(model, PROMPTS))
    assert torch.equal(found.leaves, expected.leaves)


def test_rows_of_a_state_are_its_own_memory():
    model = tiny_model()
    graphed = GraphedModel(model, capture=False)
    first = torch.tensor([[5, 9], [6, 7], [8, 4]])
    state = graphed.decode_step(started(model, PROMPTS), first, torch.zeros(3, 2, dtype=torch.long))
    assert isinstance(state, GraphState)
    kept = state.rows(torch.tensor([2, 0]))
    before = [tensor.clone() for pair in kept.key_values.layers for tensor in pair]
    graphed.decode_step(state, first + 1, torch.tensor([[1, 0]] * 3))
    after = [tensor for pair in kept.key_values.layers for tensor in pair]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert not isinstance(kept, GraphState)


def test_few_graphs_are_kept():
    model = tiny_model()
    graphed = GraphedModel(model, capture=False)
    for width in range(1, 8):
        tokens = torch.full((3, width), 5)
        graphed.decode_step(started(model, PROMPTS), tokens, torch.zeros(3, width, dtype=torch.long))
    assert len(graphed._graphs) == cuda_graphs.GRAPHS_KEPT
