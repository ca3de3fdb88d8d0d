"""All that can still be decided below the beams of a row, read in one pass.

After two or three tokens of a title few ways are left: ten beams over 3,300 titles of Office Products have
some dozens of undecided states below them, on paths of up to thirty tokens. A pass over one token a beam
costs a large model nearly as much as one over all of these, so the rest of the tree is read at once, and the
steps of the search are replayed on its log-probabilities: the same beams, in fewer passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentrec.decoding.trie_tensors import TrieTensors

LOGITS_AT_ONCE = 2**24
"""Elements of a logits block; more states are scored in pieces."""


@dataclass(frozen=True)
class ReadAhead:
    """Log-probabilities, among a state's children, of the children of S states a row.

    Attributes:
        places_RS: int64, ascending places among :class:`~latentrec.decoding.trie_tensors.UndecidedStates`;
            their number where a row has fewer states.
        log_probs_RSC: fp32, in the order of the children; 0 where there is only one.
        n_undecided: how many undecided states the trie has.
    """

    places_RS: Tensor
    log_probs_RSC: Tensor
    n_undecided: int

    def of_children(self, places_RW: Tensor, n_children: int) -> Tensor:
        """(R, W, n_children): those of the states at these places; 0 where what follows is certain."""
        slots_RW = torch.searchsorted(self.places_RS, places_RW.contiguous())
        slots_RW = slots_RW.clamp(max=self.places_RS.shape[1] - 1)
        known_RW = self.places_RS.gather(1, slots_RW) == places_RW
        known_RW &= places_RW < self.n_undecided
        index = slots_RW[..., None].expand(-1, -1, self.log_probs_RSC.shape[2])
        found_RWC = self.log_probs_RSC.gather(1, index)[..., :n_children]
        return torch.where(known_RW[..., None], found_RWC, 0.0)


@torch.no_grad()
def read_ahead(
    model: Any,
    state: Any,
    trie: TrieTensors,
    states_RW: Tensor,
    parents_RW: Tensor,
    length: int,
) -> ReadAhead:
    """Read every undecided state in the subtrees of W beams.

    Args:
        model: a :class:`~latentrec.models.latentr3.LatentR3Model`.
        state: its decoding state, which the beams' last tokens are not part of yet.
        trie: the titles.
        states_RW: each beam's state in the trie, −1 where it is dead.
        parents_RW: the beam of ``state`` that each continues.
        length: tokens of each beam, its last one included.
    """
    undecided = trie.undecided
    places_RW, order_RW = undecided.places_of(states_RW).sort(dim=1)
    counts_RW = undecided.below_beams(states_RW).gather(1, order_RW)
    total_R = counts_RW.sum(dim=1)
    rows, most = len(states_RW), int(total_R.max())
    if most == 0:
        nothing = torch.full((rows, 1), len(undecided), device=trie.device)
        return ReadAhead(nothing, torch.zeros(rows, 1, 1, device=trie.device), len(undecided))

    ends_RW = counts_RW.cumsum(dim=1)
    slot_RS = torch.arange(most, device=trie.device).repeat(rows, 1)
    real_RS = slot_RS < total_R[:, None]
    beam_RS = torch.searchsorted(ends_RW, slot_RS, right=True).clamp(max=states_RW.shape[1] - 1)
    places_RS = places_RW.gather(1, beam_RS) + slot_RS - (ends_RW - counts_RW).gather(1, beam_RS)
    places_RS = torch.where(real_RS, places_RS, len(undecided))
    at_RS = undecided.states[places_RS.clamp(max=len(undecided) - 1)]

    hidden_RSD = _run(
        model, state, trie, at_RS, real_RS, parents_RW.gather(1, order_RW.gather(1, beam_RS)), length
    )
    branching_RS = real_RS & (trie.child_counts[at_RS] > 1)
    rows_nC = _log_probs(model, trie, hidden_RSD[branching_RS], at_RS[branching_RS])
    log_probs_RSC = hidden_RSD.new_zeros(rows, most, rows_nC.shape[1], dtype=torch.float32)
    log_probs_RSC[branching_RS] = rows_nC
    return ReadAhead(places_RS, log_probs_RSC, len(undecided))


def _run(
    model: Any, state: Any, trie: TrieTensors, at_RS: Tensor, real_RS: Tensor, parent_RS: Tensor, length: int
) -> Tensor:
    """Hidden states (R, S, d): each state sees its beam, and its ancestors below that."""
    undecided, places_RS = trie.undecided, trie.undecided.place[at_RS]
    ends_RS = torch.where(real_RS, places_RS + undecided.below[at_RS], 0)
    own_RSS = (places_RS[:, None, :] <= places_RS[:, :, None]) & (places_RS[:, :, None] < ends_RS[:, None, :])
    own_RSS |= torch.eye(at_RS.shape[1], dtype=torch.bool, device=trie.device)
    before_RSC = state.visible_BWC.gather(1, parent_RS[..., None].expand(-1, -1, state.visible_BWC.shape[2]))
    tokens_RS = trie.child_tokens[(at_RS - 1).clamp(min=0)]
    positions_RS = state.positions_B[:, None] + torch.where(real_RS, undecided.depth[at_RS] - length, 0)
    hidden_RSD, _ = model.backbone.run(
        model.backbone.embed(tokens_RS),
        positions_RS,
        torch.cat([before_RSC, own_RSS], dim=2),
        state.key_values,
    )
    return hidden_RSD


def _log_probs(model: Any, trie: TrieTensors, hidden_nD: Tensor, at_n: Tensor) -> Tensor:
    """log p of each state's children among them, (n, C); 0 beyond the last."""
    children = trie.children(at_n)
    parts = []
    for begin in range(0, len(at_n), block := max(1, LOGITS_AT_ONCE // model.backbone.vocab_size)):
        piece = slice(begin, begin + block)
        chosen = model.backbone.logits(hidden_nD[piece]).gather(1, children.tokens[piece])
        parts.append(chosen.masked_fill(~children.valid[piece], -torch.inf).log_softmax(dim=1))
    return torch.cat(parts).masked_fill(~children.valid, 0.0)
