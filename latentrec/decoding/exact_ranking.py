"""Exact mode: the score of every title, each shared prefix read once. For small catalogues and for tests.

Leaves are taken in depth-first order in blocks; the states above a block are packed into one row under a
tree mask, so that a pass reads each state of the block once for each user.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentrec.decoding.beam_search import BeamResult
from latentrec.decoding.d3 import D3TokenMass
from latentrec.decoding.trie_tensors import ExcludedLeaves, TrieTensors

STATES_AT_ONCE = 1024
LOGITS_AT_ONCE = 2**26


@torch.no_grad()
def score_every_title(
    model: Any,
    start: Any,
    trie: TrieTensors,
    *,
    length_penalty: float = 1.0,
    renormalized: bool = False,
    excluded: ExcludedLeaves | None = None,
    assistant: D3TokenMass | None = None,
    alpha: float = 1.0,
) -> BeamResult:
    """Rank all leaves by the same score as the beam search's; arguments as there.

    Returns:
        every leaf of the trie, best first (U, F); excluded ones at the end with −1 and −inf.
    """
    rows = start.logits_BWV.shape[0]
    sums = torch.full((rows, trie.trie.n_leaves), -torch.inf, device=trie.device)
    for begin, end in _blocks(trie):
        sums[:, begin:end] = _score_block(model, start, trie, begin, end, renormalized)
    if assistant is not None:
        leaf_states = trie.is_leaf.nonzero()[:, 0]
        by_leaf = torch.empty_like(leaf_states)
        by_leaf[trie.leaf_begin[leaf_states]] = leaf_states
        mass = assistant.log_mass_UZ
        sums = alpha * sums + (1 - alpha) * (mass[:, by_leaf] - mass[:, :1])
    scores = sums / trie.leaf_lengths.to(sums.dtype) ** length_penalty
    if excluded is not None:
        scores = scores.masked_fill(excluded.mask(), -torch.inf)
    scores, leaves = scores.sort(dim=1, descending=True, stable=True)
    return BeamResult(torch.where(scores.isfinite(), leaves, -1), scores)


def _blocks(trie: TrieTensors) -> list[tuple[int, int]]:
    """Runs of leaves whose paths have at most about ``STATES_AT_ONCE`` states in total."""
    total = np.cumsum(trie.trie.leaf_lengths)
    blocks, begin = [], 0
    while begin < len(total):
        used = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, used + STATES_AT_ONCE, side="right")))
        blocks.append((begin, end))
        begin = end
    return blocks


def _score_block(
    model: Any, start: Any, trie: TrieTensors, begin: int, end: int, renormalized: bool
) -> Tensor:
    """Σ log p of the leaves ``begin … end``, (U, end − begin)."""
    device, rows = trie.device, start.logits_BWV.shape[0]
    above = (trie.leaf_begin < end) & (trie.leaf_end > begin)
    states = above.nonzero()[:, 0]  # ascending: root first, level by level, parents before children
    place = torch.full((trie.trie.n_states,), -1, dtype=torch.int64, device=device)
    place[states] = torch.arange(len(states), device=device)
    parent = place[trie.parents[states]]  # of the root: itself
    depth = torch.zeros(len(states), dtype=torch.int64, device=device)
    for level in range(1, trie.trie.depth + 1):
        depth[states >= int(trie.trie.level_offsets[level])] = level
    token = trie.child_tokens[(states - 1).clamp(min=0)]

    # Every inner state but the root is read; the root's logits are those of the prompt's end. Among the
    # catalogue's titles what follows a state with one title below it is certain, and nothing is read there.
    fewest = 2 if renormalized else 1
    inner = ~trie.is_leaf[states] & (trie.leaves_below(states) >= fewest)
    read = inner[1:].nonzero()[:, 0] + 1
    log_probs = torch.zeros(rows, len(states), device=device)
    first = (depth == 1).nonzero()[:, 0]
    at_root = _normalizer(start.logits_BWV, states[:1] if renormalized else None, trie)
    log_probs[:, first] = start.logits_BWV[:, 0][:, token[first]] - at_root
    if len(read):
        hidden = _read_states(model, start, token[read], depth[read], parent, read)
        position = torch.full((len(states),), -1, dtype=torch.int64, device=device)
        position[read] = torch.arange(len(read), device=device)
        later = (depth > 1).nonzero()[:, 0]
        block = max(1, LOGITS_AT_ONCE // (model.backbone.vocab_size * rows))
        order = later[torch.argsort(position[parent[later]], stable=True)]
        for piece in torch.arange(len(read), device=device).split(block):
            logits = model.backbone.logits(hidden[:, piece])
            normalizer = _normalizer(logits, states[read[piece]] if renormalized else None, trie)
            of_parent = position[parent[order]]
            chosen = order[(of_parent >= piece[0]) & (of_parent <= piece[-1])]
            at = position[parent[chosen]] - piece[0]
            log_probs[:, chosen] = logits[:, at, token[chosen]] - normalizer[:, at]
    for level in range(2, int(depth.max()) + 1):
        here = (depth == level).nonzero()[:, 0]
        log_probs[:, here] += log_probs[:, parent[here]]
    leaves = trie.is_leaf[states].nonzero()[:, 0]
    sums = torch.empty(rows, end - begin, device=device)
    sums[:, trie.leaf_begin[states[leaves]] - begin] = log_probs[:, leaves]
    return sums


def _normalizer(logits_USV: Tensor, states_S: Tensor | None, trie: TrieTensors) -> Tensor:
    """log Σ exp over the vocabulary, or over what may follow ``states_S`` where they are given; (U, S)."""
    if states_S is None:
        return logits_USV.logsumexp(dim=2)
    return trie.log_normalizer(logits_USV, states_S.expand(len(logits_USV), -1))[..., 0]


def _read_states(
    model: Any, start: Any, tokens_S: Tensor, depth_S: Tensor, parent: Tensor, read: Tensor
) -> Tensor:
    """Hidden states (U, S, d) of the inner states of a block, which attend to prompt and ancestors."""
    rows, n_read = start.logits_BWV.shape[0], len(read)
    device = tokens_S.device
    position = torch.full_like(parent, -1)
    position[read] = torch.arange(n_read, device=device)
    of_parent = position[parent[read]]  # −1 below the root
    ancestors = torch.eye(n_read, dtype=torch.bool, device=device)
    for level in range(2, int(depth_S.max()) + 1):
        here = (depth_S == level).nonzero()[:, 0]
        ancestors[here] |= ancestors[of_parent[here]]
    prompt = start.visible_BWC.expand(-1, n_read, -1)
    allowed = torch.cat([prompt, ancestors.expand(rows, -1, -1)], dim=-1)
    positions = start.positions_B[:, None] + depth_S - 1
    hidden, _ = model.backbone.run(
        model.backbone.embed(tokens_S.expand(rows, -1)), positions, allowed, start.key_values
    )
    return hidden
