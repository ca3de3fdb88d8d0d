"""Constrained decoding against transformers' generation, with and without cache; the price of its parts.

The reference is ``generate(num_beams=10, prefix_allowed_tokens_fn=…)`` of the same backbone: with cache, and
without (the published code's way; that code also reads the prompt a second time for its latent, which is
not counted here). Lists and scores must agree before anything is timed.

    python -m benchmarks.decoding [--only NAME] [--device cuda]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

from benchmarks.decoding_setup import (
    generated_titles,
    padded,
    random_prompts,
    small_model,
    titles_of_cds,
)
from benchmarks.harness import in_turns, medians, record
from latentrec.catalog import TokenTrie
from latentrec.decoding.beam_search import BeamResult, ConstrainedBeamSearch
from latentrec.decoding.trie_tensors import TrieTensors

USERS, BEAMS = 16, 10
REPEATS = 3
LARGE_VOCABULARY = 150_000
SMALL = {"d": 128, "layers": 2, "dtype": "fp32"}


def ours(
    model: Any, trie: TrieTensors, ids: torch.Tensor, mask: torch.Tensor, penalty: float = 1.0
) -> BeamResult:
    """Prefill, latents, search."""
    search = ConstrainedBeamSearch(trie, beam_width=BEAMS, length_penalty=penalty)
    return search.search(model, model.start_decoding(ids, mask))


def allowed_next(sequences: list[list[int]]) -> dict[tuple[int, ...], list[int]]:
    """Prefix → tokens that may follow: the hash table of the published code, keyed by tuples."""
    table: dict[tuple[int, ...], set[int]] = {}
    for row in sequences:
        for place in range(len(row)):
            table.setdefault(tuple(row[:place]), set()).add(row[place])
    return {prefix: sorted(tokens) for prefix, tokens in table.items()}


def transformers_generate(
    model: Any, table: dict, depth: int, ids: torch.Tensor, mask: torch.Tensor, eos: int, *, use_cache: bool
) -> Any:
    """Beam search of transformers under a prefix function; prompts padded on the left."""
    length = ids.shape[1]

    def allowed(_: int, tokens: torch.Tensor) -> list[int]:
        return table.get(tuple(tokens[length:].tolist()), [eos])

    return model.backbone.model.generate(
        input_ids=ids,
        attention_mask=mask,
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        max_new_tokens=depth,
        length_penalty=1.0,
        do_sample=False,
        use_cache=use_cache,
        prefix_allowed_tokens_fn=allowed,
        return_dict_in_generate=True,
        output_scores=True,
        pad_token_id=eos,
        eos_token_id=eos,
    )


def same_lists(
    found: BeamResult, reference: Any, sequences: list[list[int]], trie: TokenTrie, length: int
) -> float:
    """Check that both gave the same titles in the same order; returns the largest difference of scores.

    Raises:
        RuntimeError: they did not (ties within 1e-5 may swap).
    """
    texts = reference.sequences[:, length:].tolist()
    scores = reference.sequences_scores.view(-1, BEAMS).cpu()
    worst = float((found.scores.cpu() - scores).abs().max())
    for row in range(len(found.leaves)):
        for place in range(BEAMS):
            mine = sequences[trie.sequences_of_leaf(int(found.leaves[row, place]))[0]]
            if texts[row * BEAMS + place][: len(mine)] != mine:
                near = (scores[row] - found.scores[row, place].cpu()).abs() < 1e-5
                if int(near.sum()) < 2:
                    raise RuntimeError(f"user {row}, place {place}: the lists differ")
    if worst > 1e-4:
        raise RuntimeError(f"scores differ by {worst}")
    return worst


def against_transformers(device: str, names: tuple[str, ...]) -> None:
    """``decode_vs_transformers_cached`` and ``decode_vs_authors``."""
    titles, source = titles_of_cds()
    model, prompt = small_model(titles)
    model.to(device)
    sequences = [prompt.encode_target(title) for title in titles]
    trie = TokenTrie.build(sequences)
    tensors = TrieTensors(trie, device)
    table = allowed_next(sequences)
    prompts = random_prompts(prompt, titles, USERS)
    ids, mask = (tensor.to(device) for tensor in padded(prompts, prompt.pad_id))
    left_ids, left_mask = (tensor.to(device) for tensor in padded(prompts, prompt.pad_id, left=True))
    found = ours(model, tensors, ids, mask)
    sizes = {
        "users": USERS,
        "beams": BEAMS,
        **SMALL,
        "vocabulary": model.backbone.vocab_size,
        "titles": source,
        "prompt_tokens": int(ids.shape[1]),
        "longest_title_tokens": trie.depth,
    }
    for name, use_cache in (("decode_vs_transformers_cached", True), ("decode_vs_authors", False)):
        if name not in names:
            continue
        arguments = (model, table, trie.depth, left_ids, left_mask, prompt.eos_id)
        reference = transformers_generate(*arguments, use_cache=use_cache)
        worst = same_lists(found, reference, sequences, trie, ids.shape[1])
        sides = {
            "ours": lambda: _done(ours(model, tensors, ids, mask), device),
            "reference": lambda use=use_cache, a=arguments: _done(
                transformers_generate(*a, use_cache=use), device
            ),
        }
        seconds = in_turns(sides, REPEATS, warm_up=0 if not use_cache else 1)
        middle = medians(seconds)
        record(
            _named(name, device),
            USERS / middle["ours"],
            USERS / middle["reference"],
            "users/s",
            REPEATS,
            sizes,
            lower_is_better=False,
            ratio_of_best=min(seconds["reference"]) / min(seconds["ours"]),
            largest_score_difference=worst,
            all_seconds=seconds,
            note=f"same lists for all {USERS} users, scores within {worst:.1e}",
            reference_is="transformers generate, prefix_allowed_tokens_fn, use_cache=" + str(use_cache),
        )


@torch.no_grad()
def mask_share(device: str) -> None:
    """``trie_mask_share_of_step``: what finding the allowed tokens costs within one step."""
    titles, source = titles_of_cds()
    model, prompt = small_model(titles, vocabulary=16_384, rows=LARGE_VOCABULARY, steps=20)
    model.to(device)
    trie = TrieTensors(TokenTrie.build([prompt.encode_target(title) for title in titles]), device)
    ids, mask = (tensor.to(device) for tensor in padded(random_prompts(prompt, titles, USERS), prompt.pad_id))
    state = model.start_decoding(ids, mask)
    states = torch.zeros(USERS, 1, dtype=torch.int64, device=device)
    parents = torch.zeros(USERS, BEAMS, dtype=torch.int64, device=device)
    shares: dict[str, list[float]] = {"mask": [], "step": []}
    rows = []
    for depth in range(4):
        children = trie.children(states)
        log_probs = state.logits_BWV.gather(2, children.tokens).masked_fill(~children.valid, -torch.inf)
        best = log_probs.flatten(1).topk(BEAMS, dim=1).indices
        states = children.states.flatten(1).gather(1, best)
        tokens = children.tokens.flatten(1).gather(1, best)
        origin = best // children.tokens.shape[2]
        parents = origin

        def step(state: Any = state, tokens: Any = tokens, parents: Any = parents) -> Any:
            after = model.decode_step(state, tokens, parents)
            return after, after.logits_BWV.logsumexp(dim=2)

        state = step()[0]

        def constrain(state: Any = state, states: Any = states) -> Any:
            allowed = trie.children(states)
            return state.logits_BWV.gather(2, allowed.tokens).masked_fill(~allowed.valid, -torch.inf)

        seconds = medians(
            in_turns(
                {"mask": lambda f=constrain: _done(f(), device), "step": lambda f=step: _done(f(), device)}, 9
            )
        )
        for name in shares:
            shares[name].append(seconds[name])
        rows.append(
            {
                "depth": depth + 1,
                "most children": int(trie.children(states).valid.sum(dim=2).max()),
                "mask ms": 1e3 * seconds["mask"],
                "step ms": 1e3 * seconds["step"],
            }
        )
    share = sum(shares["mask"]) / (sum(shares["mask"]) + sum(shares["step"]))
    record(
        _named("trie_mask_share_of_step", device),
        share,
        0.02,
        "share of a step",
        9,
        {
            "users": USERS,
            "beams": BEAMS,
            "vocabulary": LARGE_VOCABULARY,
            "titles": source,
            "d": 128,
            "layers": 2,
        },
        table=rows,
        reference_is="the limit asked for",
    )


@torch.no_grad()
def latent_overhead(device: str) -> None:
    """``latent_token_latency_overhead``: N = 1 against N = 0, same backbone weights, same search."""
    titles, source = titles_of_cds()
    plain, prompt = small_model(titles)
    thinking, _ = small_model(titles, n_latents=1, steps=0)
    thinking.backbone.load_state_dict(plain.backbone.state_dict())
    plain.to(device)
    thinking.to(device)
    trie = TrieTensors(TokenTrie.build([prompt.encode_target(title) for title in titles]), device)
    prompts = random_prompts(prompt, titles, USERS)
    table = []
    for users in (1, USERS):
        chosen = [padded(prompts[i : i + users], prompt.pad_id) for i in range(0, USERS, users)]
        batches = [(ids.to(device), mask.to(device)) for ids, mask in chosen]
        timed: dict[str, list[float]] = {"plain": [], "thinking": [], "latent alone": []}
        for _ in range(5):
            for ids, mask in batches:
                state = thinking.encode_prompt(ids, mask)
                for name, work in (
                    ("plain", lambda i=ids, m=mask: ours(plain, trie, i, m)),
                    ("thinking", lambda i=ids, m=mask: ours(thinking, trie, i, m)),
                    ("latent alone", lambda s=state: thinking.begin_answer(s)),
                ):
                    begin = time.perf_counter()
                    _done(work(), device)
                    timed[name].append(time.perf_counter() - begin)
        middle = {name: statistics.median(values) for name, values in timed.items()}
        table.append(
            {
                "users at once": users,
                "N = 0, ms": 1e3 * middle["plain"],
                "N = 1, ms": 1e3 * middle["thinking"],
                "LatentRATT and its token, ms": 1e3 * middle["latent alone"],
                "share of N = 0": middle["latent alone"] / middle["plain"],
                "difference of totals": middle["thinking"] / middle["plain"] - 1,
            }
        )
    record(
        _named("latent_token_latency_overhead", device),
        table[-1]["share of N = 0"],
        0.10,
        "share of the latency without reasoning",
        5,
        {"users": USERS, "beams": BEAMS, **SMALL, "titles": source},
        table=table,
        reference_is="the limit asked for",
        note="time of LatentRATT and the pass of its token over the whole request at N = 0; the difference "
        "of totals also holds the effect of the latent on which beams are searched",
    )


@torch.no_grad()
def scaling(device: str) -> None:
    """``decode_catalogue_scaling``: memory, build and step time from 1 thousand to 100 thousand titles."""
    every = generated_titles(100_000)
    model, prompt = small_model(every[:20_000], vocabulary=4096, steps=100)
    model.to(device)
    ids, mask = (tensor.to(device) for tensor in padded(random_prompts(prompt, every, USERS), prompt.pad_id))
    rows = []
    for n_titles in (1_000, 3_000, 10_000, 30_000, 100_000):
        sequences = [prompt.encode_target(title) for title in every[:n_titles]]
        begin = time.perf_counter()
        trie = TokenTrie.build(sequences)
        built = time.perf_counter() - begin
        tensors = TrieTensors(trie, device)
        search_ms = [1e3 * _timed(lambda t=tensors: ours(model, t, ids, mask), device) for _ in range(5)][1:]
        states = torch.from_numpy(
            np.random.default_rng(0).choice(trie.n_states, (USERS, BEAMS)).astype(np.int64)
        ).to(device)
        mask_ms = [1e3 * _timed(lambda t=tensors, s=states: t.children(s), device) for _ in range(20)][5:]
        rows.append(
            {
                "titles": n_titles,
                "states": trie.n_states,
                "trie MB": trie.nbytes / 1e6,
                "build s": built,
                "mask ms": statistics.median(mask_ms),
                "search of 16 users, ms": statistics.median(search_ms),
            }
        )
    record(
        _named("decode_catalogue_scaling", device),
        rows[-1]["search of 16 users, ms"],
        rows[0]["search of 16 users, ms"],
        "ms",
        4,
        {"users": USERS, "beams": BEAMS, **SMALL, "titles": "generated, 1,000 to 100,000"},
        table=rows,
        reference_is="the same search over 1,000 titles",
        note="how the search of 16 users grows when the catalogue grows a hundredfold",
    )


def _timed(work: Any, device: str) -> float:
    begin = time.perf_counter()
    _done(work(), device)
    return time.perf_counter() - begin


def _done(result: Any, device: str) -> Any:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return result


def _named(name: str, device: str) -> str:
    return name if device == "cpu" else f"{name}_gpu"


def run(only: str | None = None, device: str = "cpu") -> None:
    """Measure everything of this module, or one benchmark, and record it."""
    torch.set_num_threads(2)
    pairs = ("decode_vs_transformers_cached", "decode_vs_authors")
    if only is None or only in pairs:
        against_transformers(device, pairs if only is None else (only,))
    for name, work in (
        ("trie_mask_share_of_step", mask_share),
        ("latent_token_latency_overhead", latent_overhead),
        ("decode_catalogue_scaling", scaling),
    ):
        if only in (None, name):
            work(device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    run(arguments.only, arguments.device)
