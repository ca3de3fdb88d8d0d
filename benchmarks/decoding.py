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
from collections.abc import Callable
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
SMALL = {"d": 128, "layers": 2, "dtype": "fp32", "threads": 1}
CLOCK = "on a CPU, processor seconds of the one thread: the machine was shared"


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
    backbone: Any,
    table: dict,
    depth: int,
    ids: torch.Tensor,
    mask: torch.Tensor,
    eos: int,
    *,
    use_cache: bool,
) -> Any:
    """Beam search of transformers under a prefix function; prompts padded on the left."""
    length = ids.shape[1]

    def allowed(_: int, tokens: torch.Tensor) -> list[int]:
        return table.get(tuple(tokens[length:].tolist()), [eos])

    return backbone.generate(
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


def published_forward(model: Any) -> Any:
    """The published formulation as a transformers model: nothing is kept between tokens.

    Each call reads the prompt for its hidden states, makes the latent, and reads prompt, latent and answer
    again. The last prompt token is the place of the latent (the published code's ``<|Thought|>``).
    """
    from transformers import Qwen2ForCausalLM

    class Published(Qwen2ForCausalLM):
        prompt_length = 0

        def forward(self, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
            before = slice(0, self.prompt_length - 1)
            state = model.encode_prompt(input_ids[:, before], attention_mask[:, before])
            embeds = self.get_input_embeddings()(input_ids)
            embeds[:, self.prompt_length - 1] = model.roll_out(state).actions_BMND[:, 0, 0]
            positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
            return super().forward(
                inputs_embeds=embeds, attention_mask=attention_mask, position_ids=positions, use_cache=False
            )

    published = Published(model.backbone.model.config)
    published.load_state_dict(model.backbone.model.state_dict())
    published.generation_config = model.backbone.model.generation_config
    return published.eval().to(model.device)


def against_transformers(device: str, names: tuple[str, ...]) -> None:
    """``decode_vs_transformers_cached`` (N = 0) and ``decode_vs_authors`` (N = 0 and N = 1)."""
    titles, source = titles_of_cds()
    model, prompt = small_model(titles)
    model.to(device)
    sequences = [prompt.encode_target(title) for title in titles]
    trie = TokenTrie.build(sequences)
    tensors = TrieTensors(trie, device)
    table = allowed_next(sequences)
    prompts = random_prompts(prompt, titles, USERS)
    ids, mask = (tensor.to(device) for tensor in padded(prompts, prompt.pad_id))

    def measure(ours_model: Any, theirs: Any, thought: list[int], use_cache: bool, repeats: int) -> dict:
        left = padded([row + thought for row in prompts], prompt.pad_id, left=True)
        left_ids, left_mask = (tensor.to(device) for tensor in left)

        def generate() -> Any:
            arguments = (theirs, table, trie.depth, left_ids, left_mask, prompt.eos_id)
            return _done(transformers_generate(*arguments, use_cache=use_cache), device)

        found = ours(ours_model, tensors, ids, mask)
        worst = same_lists(found, generate(), sequences, trie, left_ids.shape[1])
        sides = {"ours": lambda: _done(ours(ours_model, tensors, ids, mask), device), "reference": generate}
        seconds = in_turns(sides, repeats, warm_up=int(use_cache), clock=_clock(device))
        middle = medians(seconds)
        return {
            "latent tokens": ours_model.n_latents,
            "ours users/s": USERS / middle["ours"],
            "reference users/s": USERS / middle["reference"],
            "ratio": middle["reference"] / middle["ours"],
            "ratio of the best": min(seconds["reference"]) / min(seconds["ours"]),
            "largest score difference": worst,
        }

    def write(name: str, rows: list[dict], repeats: int, reference: str) -> None:
        sizes = {
            "users": USERS,
            "beams": BEAMS,
            **SMALL,
            "vocabulary": model.backbone.vocab_size,
            "titles": source,
            "prompt_tokens": int(ids.shape[1]),
            "longest_title_tokens": trie.depth,
        }
        record(
            _named(name, device),
            rows[-1]["ours users/s"],
            rows[-1]["reference users/s"],
            "users/s",
            repeats,
            sizes,
            lower_is_better=False,
            table=rows,
            note=f"the same lists for all {USERS} users on both sides",
            clock=CLOCK,
            reference_is=reference,
        )

    backbone = model.backbone.model
    if "decode_vs_transformers_cached" in names:
        rows = [measure(model, backbone, [], True, 5)]
        write("decode_vs_transformers_cached", rows, 5, "transformers generate, prefix function, KV cache")
    if "decode_vs_authors" in names:
        thinking, _ = small_model(titles, n_latents=1, steps=0)
        thinking.backbone.load_state_dict(model.backbone.state_dict())
        thinking.to(device)
        published = published_forward(thinking)
        published.prompt_length = max(map(len, prompts)) + 1
        rows = [
            measure(model, backbone, [], False, REPEATS),
            measure(thinking, published, [prompt.eos_id], False, REPEATS),
        ]
        write(
            "decode_vs_authors",
            rows,
            REPEATS,
            "transformers generate, prefix function, no cache; N = 0: one pass over everything a token; "
            "N = 1: the published forward, which reads the prompt twice a token",
        )


@torch.no_grad()
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
                clock=_clock(device),
                repeats=3,
                sides={
                    "mask": lambda f=constrain: _done(f(), device),
                    "step": lambda f=step: _done(f(), device),
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
        _named("trie_mask_share_of_step", device),
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
        timed: dict[str, list[float]] = {"plain": [], "thinking": [], "latent alone": []}
        for _ in range(5):
            for ids, mask in batches:
                state = thinking.encode_prompt(ids, mask)
                for name, work in (
                    ("plain", lambda i=ids, m=mask: ours(plain, trie, i, m)),
                    ("thinking", lambda i=ids, m=mask: ours(thinking, trie, i, m)),
                    ("latent alone", lambda s=state: thinking.begin_answer(s)),
                ):
                    timed[name].append(_timed(work, device))
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
    clock = _clock(device)
    begin = clock()
    _done(work(), device)
    return clock() - begin


def _clock(device: str) -> Callable[[], float]:
    """Processor seconds of this (single-threaded) process on a CPU, so that neighbours do not count."""
    return time.process_time if device == "cpu" else time.perf_counter


def _done(result: Any, device: str) -> Any:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return result


def _named(name: str, device: str) -> str:
    return name if device == "cpu" else f"{name}_gpu"


def run(only: str | None = None, device: str = "cpu") -> None:
    """Measure everything of this module, or one benchmark, and record it."""
    torch.set_num_threads(1)
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
