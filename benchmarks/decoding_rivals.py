"""Constrained decoding against transformers' generation under a prefix function, with and without cache.

Lists and scores must agree before anything is timed.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.decoding_setup import (
    BEAMS,
    CLOCK,
    SMALL,
    USERS,
    clock_of,
    done,
    named,
    ours,
    padded,
    random_prompts,
    small_model,
    titles_of_cds,
)
from benchmarks.harness import in_turns, medians, record
from latentrec.catalog import TokenTrie
from latentrec.decoding.beam_search import BeamResult
from latentrec.decoding.trie_tensors import TrieTensors

REPEATS = 3


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
            return done(transformers_generate(*arguments, use_cache=use_cache), device)

        found = ours(ours_model, tensors, ids, mask)
        worst = same_lists(found, generate(), sequences, trie, left_ids.shape[1])
        sides = {"ours": lambda: done(ours(ours_model, tensors, ids, mask), device), "reference": generate}
        seconds = in_turns(sides, repeats, warm_up=int(use_cache), clock=clock_of(device))
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
            named(name, device),
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
