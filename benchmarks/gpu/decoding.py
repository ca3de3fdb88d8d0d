"""Part c: users a second of the constrained search, beside transformers' generation, and of exact ranking.

A model of SmolLM2's shape is taught the titles for a few steps, so that beams behave as in use. Lists and
scores must agree with transformers' before anything is timed (fp32).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks.decoding_rivals import allowed_next, same_lists, transformers_generate
from benchmarks.decoding_setup import BEAMS, generated_titles, ours, padded, random_prompts
from benchmarks.gpu.context import Context
from benchmarks.gpu.shapes import SHAPES, TOY, causal_lm
from latentrec.catalog import TokenTrie
from latentrec.decoding.cuda_graphs import GraphedModel
from latentrec.decoding.exact_ranking import score_every_title
from latentrec.decoding.trie_tensors import TrieTensors
from latentrec.models.latentr3 import LatentR3Model
from latentrec.models.presets import train_tokenizer
from latentrec.prompts import NextItemPrompt

USERS, MANY = 16, 64


@torch.no_grad()
def run(context: Context) -> None:
    """Catalogues of five thousand and a hundred thousand titles."""
    shape = TOY if context.toy else SHAPES["SmolLM2-135M"]
    sizes = (200, 1000) if context.toy else (5_000, 100_000)
    titles = generated_titles(sizes[-1])
    tokenizer = train_tokenizer([f'"{title}"\n' for title in titles], min(shape.vocabulary, 16_384))
    prompt = NextItemPrompt(tokenizer)
    model = LatentR3Model(causal_lm(shape, context.device), n_latents=0).to(context.device)
    teach(context, model, prompt, titles[: sizes[0]])
    for users in (4,) if context.toy else (USERS, MANY, 256):
        if context.has_time(12):
            against_transformers(context, model, prompt, titles[: sizes[0]], users)
            context.clear()
    for size in sizes:
        if context.has_time(15):
            catalogue(context, model, prompt, titles[:size])


def teach(context: Context, model: LatentR3Model, prompt: NextItemPrompt, titles: list[str]) -> None:
    """A few steps on titles alone."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(3 if context.toy else 60):
            drawn = torch.randint(len(titles), (32,), generator=generator).tolist()
            rows = [prompt.response_ids + prompt.encode_target(titles[index]) for index in drawn]
            ids, mask = (tensor.to(context.device) for tensor in padded(rows, prompt.pad_id))
            labels = ids.masked_fill(mask == 0, -100)
            loss = model.backbone.model(input_ids=ids, attention_mask=mask, labels=labels).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    model.eval()


def against_transformers(
    context: Context, model: LatentR3Model, prompt: NextItemPrompt, titles: list[str], users: int
) -> None:
    """Ours and ``generate(num_beams=10, prefix_allowed_tokens_fn=…)`` with its cache."""
    device = context.device
    sequences = [prompt.encode_target(title) for title in titles]
    trie = TokenTrie.build(sequences)
    tensors = TrieTensors(trie, device)
    table = allowed_next(sequences)
    prompts = random_prompts(prompt, titles, users)
    ids, mask = (tensor.to(device) for tensor in padded(prompts, prompt.pad_id))
    left_ids, left_mask = (tensor.to(device) for tensor in padded(prompts, prompt.pad_id, left=True))

    def theirs() -> Any:
        inputs = (model.backbone.model, table, trie.depth, left_ids, left_mask, prompt.eos_id)
        return transformers_generate(*inputs, use_cache=True)

    graphed = GraphedModel(model, capture=device == "cuda")
    worst = same_lists(ours(graphed, tensors, ids, mask), theirs(), sequences, trie, left_ids.shape[1])
    mine = context.seconds(lambda: ours(graphed, tensors, ids, mask), repeats=3)
    eager = context.seconds(lambda: ours(model, tensors, ids, mask), repeats=2, warm_up=1)
    reference = context.seconds(theirs, repeats=1, warm_up=0)
    context.record(
        "c decoding against transformers (10 beams, prefix function, KV cache, fp32)",
        f"{len(titles):,} titles, {users} users",
        users=users,
        ours_users_per_s=users / mine,
        transformers_users_per_s=users / reference,
        ratio=reference / mine,
        ratio_without_graphs=reference / eager,
        largest_score_difference=worst,
    )


def catalogue(context: Context, model: LatentR3Model, prompt: NextItemPrompt, titles: list[str]) -> None:
    """Beams at a serving batch in fp32 and bf16, exact ranking, and what finding the allowed tokens costs."""
    device, users = context.device, 4 if context.toy else MANY
    tensors = TrieTensors(TokenTrie.build([prompt.encode_target(title) for title in titles]), device)
    ids, mask = (tensor.to(device) for tensor in padded(random_prompts(prompt, titles, users), prompt.pad_id))
    figures: dict[str, Any] = {"users": users}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model.to(kind)
        graphed = GraphedModel(model, capture=device == "cuda")
        figures[f"beams_{name}_users_per_s"] = users / context.seconds(
            partial(ours, graphed, tensors, ids, mask), repeats=3, warm_up=1
        )
    if len(titles) <= 5_000:
        few = 1 if context.toy else 16
        start = model.start_decoding(ids[:few], mask[:few])
        figures["exact_bf16_users_per_s"] = few / context.seconds(
            lambda: score_every_title(model, start, tensors, length_penalty=0.0, renormalized=True),
            repeats=2,
            warm_up=1,
        )
    figures["mask_share_of_step"] = mask_share(context, graphed, tensors, ids, mask)
    model.to(torch.float32)
    context.record("c decoding", f"{len(titles):,} titles", **figures)


def mask_share(
    context: Context, model: Any, trie: TrieTensors, ids: torch.Tensor, mask: torch.Tensor
) -> float:
    """Share of the third step that goes into finding and gathering the tokens that may follow."""
    state = model.start_decoding(ids, mask)
    states = torch.zeros(len(ids), 1, dtype=torch.int64, device=context.device)
    tokens = parents = states
    for _ in range(2):
        children = trie.children(states)
        totals = (
            state.logits_BWV.gather(2, children.tokens).masked_fill(~children.valid, -torch.inf).flatten(1)
        )
        best = totals.topk(min(BEAMS, totals.shape[1]), dim=1).indices
        states = children.states.flatten(1).gather(1, best)
        tokens = children.tokens.flatten(1).gather(1, best)
        parents = best // children.tokens.shape[2]
        state = model.decode_step(state, tokens, parents)

    def constrain() -> torch.Tensor:
        allowed = trie.children(states)
        return state.logits_BWV.gather(2, allowed.tokens).masked_fill(~allowed.valid, -torch.inf)

    own = torch.arange(states.shape[1], device=context.device).expand_as(states)
    step = context.seconds(lambda: model.decode_step(state, tokens, own), repeats=5)
    found = context.seconds(constrain, repeats=5)
    return found / (found + step)
