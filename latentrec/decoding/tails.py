"""The rest of titles that are already determined, read several tokens at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from latentrec.decoding.trie_tensors import TrieTensors

LOGITS_AT_ONCE = 2**26
"""Elements of a logits block; longer tails are scored in pieces."""
TAIL = 6
"""Tokens of a tail that are read in one pass."""


def tail_paths(trie: TrieTensors, states: Tensor) -> tuple[Tensor, Tensor]:
    """States and tokens on each beam's way to its only leaf, (R, W, S); 0 after the end.

    S is :data:`TAIL` at most: the search may stop before the longest title is read.
    """
    path_states: list[Tensor] = []
    path_tokens: list[Tensor] = []
    current = states.clamp(min=0)
    going = (states >= 0) & ~trie.is_leaf[current]
    while len(path_states) < TAIL and bool(going.any()):
        edges = torch.where(going, trie.child_offsets[current], 0)
        current = torch.where(going, edges + 1, current)
        path_states.append(torch.where(going, current, 0))
        path_tokens.append(torch.where(going, trie.child_tokens[edges], 0))
        going &= ~trie.is_leaf[current]
    return torch.stack(path_states, dim=2), torch.stack(path_tokens, dim=2)


def tail_log_probs(model: Any, hidden: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
    """log p of each valid token after each hidden state, a bounded block of logits at a time."""
    hidden_nD, tokens_n = hidden[valid], tokens[valid]
    block = max(1, LOGITS_AT_ONCE // model.backbone.vocab_size)
    parts = []
    for begin in range(0, len(tokens_n), block):
        logits = model.backbone.logits(hidden_nD[begin : begin + block])
        chosen = logits.gather(1, tokens_n[begin : begin + block, None])[:, 0]
        parts.append(chosen - logits.logsumexp(dim=1))
    return torch.zeros(valid.shape, device=hidden.device).masked_scatter(valid, torch.cat(parts))


def continue_beams(model: Any, state: Any, tokens_RWS: Tensor, parents_RW: Tensor) -> tuple[Tensor, Any]:
    """Read S tokens that continue each of W beams, in one pass.

    Args:
        model: a :class:`~latentrec.models.latentr3.LatentR3Model`.
        state: its decoding state.
        tokens_RWS: the tokens of each beam, in order.
        parents_RW: the beam of ``state`` that each continues.

    Returns:
        Hidden states (R, W, S, d) after each token, and the state with these slots (its logits are stale).
    """
    rows, width, steps = tokens_RWS.shape
    device = tokens_RWS.device
    n_slots = state.visible_BWC.shape[-1]
    before = state.visible_BWC.gather(1, parents_RW[..., None].expand(-1, -1, n_slots))
    spread = before[:, :, None].expand(-1, -1, steps, -1).reshape(rows, width * steps, n_slots)
    own_WW = torch.eye(width, dtype=torch.bool, device=device)
    causal_SS = torch.ones(steps, steps, dtype=torch.bool, device=device).tril()
    own = (own_WW[:, None, :, None] & causal_SS[None, :, None, :]).reshape(width * steps, width * steps)
    allowed = torch.cat([spread, own.expand(rows, -1, -1)], dim=-1)
    positions = (state.positions_B[:, None, None] + torch.arange(steps, device=device)).expand(-1, width, -1)
    hidden, new = model.backbone.run(
        model.backbone.embed(tokens_RWS.reshape(rows, -1)),
        positions.reshape(rows, -1),
        allowed,
        state.key_values,
    )
    own_slots = own_WW.repeat_interleave(steps, dim=1).expand(rows, -1, -1)
    after = replace(
        state,
        key_values=state.key_values.extended(new),
        visible_BWC=torch.cat([before, own_slots], dim=-1),
        positions_B=state.positions_B + steps,
    )
    return hidden.view(rows, width, steps, -1), after
