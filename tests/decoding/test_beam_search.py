"""Exactness of the constrained beam search: against plain scoring of every title and against transformers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from latentrec.catalog import TokenTrie
from latentrec.decoding.beam_search import ConstrainedBeamSearch
from latentrec.decoding.d3 import D3TokenMass
from latentrec.decoding.exact_ranking import score_every_title
from latentrec.decoding.trie_tensors import ExcludedLeaves, TrieTensors
from tests.decoding.tiny import EOS, plain_scores, started, tiny_model

TOKENS = st.integers(2, 31)
catalogues = st.lists(st.lists(st.integers(2, 7), min_size=0, max_size=6), min_size=1, max_size=25)
prompt_batches = st.lists(st.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=4)


CLOSE = {"atol": 1e-5, "rtol": 1e-6}


def scores_of_leaves(model, prompt, trie, sequences):
    """Σ log p of every leaf, by plain passes."""
    chosen = [sequences[trie.sequences_of_leaf(leaf)[0]] for leaf in range(trie.n_leaves)]
    return torch.tensor(plain_scores(model, prompt, chosen))


@settings(max_examples=25, deadline=None)
@given(
    catalogues,
    prompt_batches,
    st.integers(0, 3),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([0.0, 1.0, 0.6]),
)
def test_width_of_the_catalogue_gives_the_exhaustive_ranking(rows, prompts, seed, n_latents, penalty):
    model = tiny_model(seed=seed, n_latents=n_latents)
    sequences = [[*row, EOS] for row in rows]
    trie = TrieTensors(TokenTrie.build(sequences))
    search = ConstrainedBeamSearch(trie, beam_width=trie.trie.n_leaves, length_penalty=penalty)
    found = search.search(model, started(model, prompts))
    exact = score_every_title(model, started(model, prompts), trie, length_penalty=penalty)
    for row, prompt in enumerate(prompts):
        by_hand = scores_of_leaves(model, prompt, trie.trie, sequences)
        expected = by_hand / trie.leaf_lengths**penalty
        for result in (found, exact):
            assert sorted(result.leaves[row].tolist()) == list(range(trie.trie.n_leaves))
            torch.testing.assert_close(result.scores[row], expected[result.leaves[row]], **CLOSE)
            assert result.scores[row].tolist() == sorted(result.scores[row].tolist(), reverse=True)


@settings(max_examples=25, deadline=None)
@given(catalogues, prompt_batches, st.integers(0, 3), st.sampled_from([0, 1]), st.data())
def test_catalogue_scores_are_probabilities_of_the_titles_among_themselves(
    rows, prompts, seed, n_latents, data
):
    model = tiny_model(seed=seed, n_latents=n_latents)
    sequences = [[*row, EOS] for row in rows]
    trie = TrieTensors(TokenTrie.build(sequences))
    n_leaves = trie.trie.n_leaves
    chosen = [sequences[trie.trie.sequences_of_leaf(leaf)[0]] for leaf in range(n_leaves)]
    start, scoring = started(model, prompts), {"length_penalty": 0.0, "renormalized": True}
    search = ConstrainedBeamSearch(trie, beam_width=n_leaves, **scoring)
    closed = [data.draw(st.lists(st.integers(0, n_leaves - 1), unique=True)) for _ in prompts]
    excluded = ExcludedLeaves.of(closed, n_leaves, torch.device("cpu"))
    found, some = search.search(model, start), search.search(model, start, excluded=excluded)
    exact = score_every_title(model, start, trie, **scoring)
    for row, prompt in enumerate(prompts):
        expected = torch.tensor(plain_scores(model, prompt, chosen, among_themselves=True))
        torch.testing.assert_close(expected.exp().sum(), torch.tensor(1.0))
        for result in (found, exact):
            torch.testing.assert_close(result.scores[row], expected[result.leaves[row]], **CLOSE)
        kept = some.leaves[row][some.leaves[row] >= 0]
        assert sorted(kept.tolist()) == sorted(set(range(n_leaves)) - set(closed[row]))
        torch.testing.assert_close(some.scores[row][: len(kept)], expected[kept], **CLOSE)


@settings(max_examples=25, deadline=None)
@given(catalogues, prompt_batches, st.integers(0, 3), st.data())
def test_excluded_leaves_never_appear_and_the_rest_is_unchanged(rows, prompts, seed, data):
    model = tiny_model(seed=seed)
    trie = TrieTensors(TokenTrie.build([[*row, EOS] for row in rows]))
    n_leaves = trie.trie.n_leaves
    closed = [
        data.draw(st.lists(st.integers(0, n_leaves - 1), unique=True, max_size=n_leaves)) for _ in prompts
    ]
    excluded = ExcludedLeaves.of(closed, n_leaves, torch.device("cpu"))
    start = started(model, prompts)
    found = ConstrainedBeamSearch(trie, beam_width=n_leaves).search(model, start, excluded=excluded)
    exact = score_every_title(model, start, trie, excluded=excluded)
    everything = score_every_title(model, start, trie)
    for row, own in enumerate(closed):
        left = [leaf for leaf in everything.leaves[row].tolist() if leaf not in own]
        for result in (found, exact):
            kept = result.leaves[row][result.leaves[row] >= 0].tolist()
            assert sorted(kept) == sorted(left)
            assert result.scores[row][: len(kept)].tolist() == pytest.approx(
                [
                    score
                    for leaf, score in zip(
                        everything.leaves[row].tolist(), everything.scores[row].tolist(), strict=True
                    )
                    if leaf not in own
                ],
                abs=1e-5,
            )


@settings(max_examples=25, deadline=None)
@given(catalogues, prompt_batches, st.integers(0, 3), st.sampled_from([0.8, 0.5, 0.0]))
def test_d3_mixes_model_and_assistant_token_by_token(rows, prompts, seed, alpha):
    model = tiny_model(seed=seed)
    sequences = [[*row, EOS] for row in rows]
    trie = TrieTensors(TokenTrie.build(sequences))
    n_leaves = trie.trie.n_leaves
    torch.manual_seed(seed)
    mass = torch.rand(len(prompts), n_leaves).softmax(dim=1)
    assistant = D3TokenMass.of_leaves(mass, trie)
    search = ConstrainedBeamSearch(trie, beam_width=n_leaves, length_penalty=0.0)
    start = started(model, prompts)
    found = search.search(model, start, assistant=assistant, alpha=alpha)
    exact = score_every_title(model, start, trie, length_penalty=0.0, assistant=assistant, alpha=alpha)
    for row, prompt in enumerate(prompts):
        by_hand = scores_of_leaves(model, prompt, trie.trie, sequences)
        for leaf in range(n_leaves):
            sequence = sequences[trie.trie.sequences_of_leaf(leaf)[0]]
            second, state = 0.0, 0
            for token in sequence:  # written out: mass below the token over mass below all its siblings
                children = trie.trie.children(state)
                below = {
                    t: mass[row, trie.trie.leaf_begin[s] : trie.trie.leaf_end[s]].sum()
                    for t, s in children.items()
                }
                second += float((below[token] / sum(below.values())).log())
                state = children[token]
            expected = alpha * float(by_hand[leaf]) + (1 - alpha) * second
            for result in (found, exact):
                at = result.leaves[row].tolist().index(leaf)
                assert float(result.scores[row, at]) == pytest.approx(expected, abs=2e-5)


def transformers_beams(model, prompt, trie, width, penalty):
    """(sequence, score) of ``generate`` under a prefix function, for a model without latents."""

    def allowed(_, ids):
        state = 0
        for token in ids[len(prompt) :].tolist():
            state = trie.children(state).get(token, -1)
            if state < 0:
                return [EOS]
        return list(trie.children(state)) or [EOS]

    config = GenerationConfig(
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=trie.depth,
        length_penalty=penalty,
        do_sample=False,
        eos_token_id=EOS,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    output = model.backbone.model.generate(
        torch.tensor([prompt]), generation_config=config, prefix_allowed_tokens_fn=allowed
    )
    rows = []
    for ids, score in zip(
        output.sequences[:, len(prompt) :].tolist(), output.sequences_scores.tolist(), strict=True
    ):
        rows.append((ids[: ids.index(EOS) + 1], score))
    return rows


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(2, 12), min_size=1, max_size=8), min_size=40, max_size=120, unique_by=tuple
    ),
    st.lists(st.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=5),
    st.integers(0, 5),
    st.sampled_from([1.0, 0.0]),
)
def test_ten_beams_equal_transformers_constrained_beam_search(rows, prompts, seed, penalty):
    model = tiny_model(seed=seed, n_latents=0)
    sequences = [[*row, EOS] for row in rows]
    trie = TokenTrie.build(sequences)
    search = ConstrainedBeamSearch(TrieTensors(trie), beam_width=10, length_penalty=penalty)
    found = search.search(model, started(model, prompts))
    for row, prompt in enumerate(prompts):
        ours = [
            (sequences[trie.sequences_of_leaf(leaf)[0]], score)
            for leaf, score in zip(found.leaves[row].tolist(), found.scores[row].tolist(), strict=True)
        ]
        theirs = transformers_beams(model, prompt, trie, 10, penalty)
        assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-5)
        assert [sequence for sequence, _ in ours] == [sequence for sequence, _ in theirs]


def test_users_do_not_influence_each_other():
    model = tiny_model(seed=3)
    torch.manual_seed(0)
    rows = torch.randint(2, 12, (200, 6)).tolist()
    trie = TrieTensors(TokenTrie.build([[*row[: 1 + index % 6], EOS] for index, row in enumerate(rows)]))
    prompts = [torch.randint(2, 31, (length,)).tolist() for length in (1, 4, 9, 2, 7)]
    search = ConstrainedBeamSearch(trie, beam_width=10)
    together = search.search(model, started(model, prompts))
    for row, prompt in enumerate(prompts):
        alone = search.search(model, started(model, [prompt]))
        assert alone.leaves[0].tolist() == together.leaves[row].tolist()
        assert alone.scores[0].tolist() == pytest.approx(together.scores[row].tolist(), abs=1e-5)


def test_titles_of_one_token_and_a_catalogue_of_one_title():
    model = tiny_model()
    for sequences in ([[EOS]], [[5, EOS]], [[EOS], [4, EOS], [4, 4, EOS]]):
        trie = TrieTensors(TokenTrie.build(sequences))
        found = ConstrainedBeamSearch(trie, beam_width=10).search(model, started(model, [[3, 4], [9]]))
        for row in found.leaves.tolist():
            assert sorted(leaf for leaf in row if leaf >= 0) == list(range(trie.trie.n_leaves))
