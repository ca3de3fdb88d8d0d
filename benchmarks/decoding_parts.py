"""The price of decoding's parts: the trie's mask, the latent token, a growing catalogue; what reading ahead
spares."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.decoding_setup import (
    BEAMS,
    CLOCK,
    SMALL,
    USERS,
    clock_of,
    done,
    generated_titles,
    named,
    ours,
    padded,
    random_prompts,
    small_model,
    timed,
    titles_of_cds,
)
from benchmarks.harness import in_turns, medians, record
from latentrec.catalog import TokenTrie
from latentrec.decoding.beam_search import BeamResult, ConstrainedBeamSearch
from latentrec.decoding.trie_tensors import TrieTensors

LARGE_VOCABULARY = 150_000


@torch.no_grad()
def finished(call: Callable[[], Any], device: str) -> Any:
    """What ``call`` gives, once the device has made it."""
    return done(call(), device)


def mask_share(device: str) -> None:
    """``trie_mask_share_of_step``: what finding the allowed tokens costs within one step."""
    titles, source = titles_of_cds()
    model, prompt = small_model(titles, vocabulary=16_384, rows=LARGE_VOCABULARY, steps=0)
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
        totals = log_probs.flatten(1)
        best = totals.topk(min(BEAMS, totals.shape[1]), dim=1).indices
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
                clock=clock_of(device),
                repeats=3,
                sides={
                    "mask": partial(finished, constrain, device),
                    "step": partial(finished, step, device),
                },
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
        named("trie_mask_share_of_step", device),
        share,
        0.02,
        "share of a step",
        3,
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
        spent: dict[str, list[float]] = {"plain": [], "thinking": [], "latent alone": []}
        for _ in range(5):
            for ids, mask in batches:
                state = thinking.encode_prompt(ids, mask)
                for name, work in (
                    ("plain", lambda i=ids, m=mask: ours(plain, trie, i, m)),
                    ("thinking", lambda i=ids, m=mask: ours(thinking, trie, i, m)),
                    ("latent alone", lambda s=state: thinking.begin_answer(s)),
                ):
                    spent[name].append(timed(work, device))
        middle = {name: statistics.median(values) for name, values in spent.items()}
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
        named("latent_token_latency_overhead", device),
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
def read_ahead(device: str) -> None:
    """``decode_read_ahead_vs_steps``: catalogue decoding with the rest of the tree read in one pass, beside
    one token of each beam at a time."""
    titles, source = titles_of_cds()
    model, prompt = small_model(titles, n_latents=1)
    model.to(device)
    trie = TrieTensors(TokenTrie.build([prompt.encode_target(title) for title in titles]), device)
    prompts = random_prompts(prompt, titles, 4 * USERS)

    def search(users: int, most: int | None) -> BeamResult:
        ids, mask = (tensor.to(device) for tensor in padded(prompts[:users], prompt.pad_id))
        scoring: dict[str, Any] = {"beam_width": BEAMS, "length_penalty": 0.0, "renormalized": True}
        return ConstrainedBeamSearch(trie, read_ahead=most, **scoring).search(
            model, model.start_decoding(ids, mask)
        )

    table = []
    for users in (1, USERS, 4 * USERS):
        found, expected = search(users, None), search(users, 0)
        assert found.leaves.tolist() == expected.leaves.tolist()
        sides = {"ahead": partial(search, users, None), "steps": partial(search, users, 0)}
        calls = {name: partial(finished, side, device) for name, side in sides.items()}
        middle = medians(in_turns(calls, 5, clock=clock_of(device)))
        table.append(
            {
                "users at once": users,
                "ahead, ms": 1e3 * middle["ahead"],
                "steps, ms": 1e3 * middle["steps"],
                "ratio": middle["steps"] / middle["ahead"],
            }
        )
    record(
        named("decode_read_ahead_vs_steps", device),
        table[-1]["ahead, ms"],
        table[-1]["steps, ms"],
        "ms",
        5,
        {"beams": BEAMS, **SMALL, "titles": source, "latent tokens": 1},
        table=table,
        reference_is="the same search, one token of each beam at a time",
        note="prompt and latent included; the same lists on both sides",
        clock=CLOCK,
    )


@torch.no_grad()
def scaling(device: str) -> None:
    """``decode_catalogue_scaling``: memory, build and step time from 1 thousand to 100 thousand titles."""
    every = generated_titles(100_000)
    model, prompt = small_model(every[:20_000], vocabulary=4096, steps=30)
    model.to(device)
    ids, mask = (tensor.to(device) for tensor in padded(random_prompts(prompt, every, USERS), prompt.pad_id))
    rows = []
    for n_titles in (1_000, 3_000, 10_000, 30_000, 100_000):
        sequences = [prompt.encode_target(title) for title in every[:n_titles]]
        begin = time.perf_counter()
        trie = TokenTrie.build(sequences)
        built = time.perf_counter() - begin
        tensors = TrieTensors(trie, device)
        search_ms = [1e3 * timed(lambda t=tensors: ours(model, t, ids, mask), device) for _ in range(5)][1:]
        states = torch.from_numpy(
            np.random.default_rng(0).choice(trie.n_states, (USERS, BEAMS)).astype(np.int64)
        ).to(device)
        mask_ms = [1e3 * timed(lambda t=tensors, s=states: t.children(s), device) for _ in range(20)][5:]
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
        named("decode_catalogue_scaling", device),
        rows[-1]["search of 16 users, ms"],
        rows[0]["search of 16 users, ms"],
        "ms",
        4,
        {"users": USERS, "beams": BEAMS, **SMALL, "titles": "generated, 1,000 to 100,000"},
        table=rows,
        reference_is="the same search over 1,000 titles",
        note="how the search of 16 users grows when the catalogue grows a hundredfold",
    )
