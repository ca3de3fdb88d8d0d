"""Beam search over the titles of a catalogue, batched over users and beams, on a shared prompt cache.

Rules are those of transformers' beam search (2 × width candidates a step, a hypothesis ends when it is among
the best width, score = Σ log p / length^penalty, the same stopping rule), so lists and scores agree with
``generate(num_beams=…, prefix_allowed_tokens_fn=…)``. What differs is the cost:

- beams are *slots under a mask*, not rows: the prompt's keys and values exist once a user, and reordering
  beams moves no cache (:class:`~latentrec.models.latentr3.DecodingState`);
- the constraint gathers children's log-probabilities instead of masking the vocabulary;
- when every beam of a user can reach one title only, the rest of those titles is read in a single pass (the
  *tail*) and the remaining steps are replayed on its log-probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from latentrec.decoding.cuda_graphs import GraphedModel
from latentrec.decoding.d3 import D3TokenMass
from latentrec.decoding.trie_tensors import ExcludedLeaves, TrieTensors

LOGITS_AT_ONCE = 2**26
"""Elements of a logits block; longer tails are scored in pieces."""
TAIL = 6
"""Tokens of a tail that are read in one pass."""
REST = 0.75
"""Rows are dropped from the batch when fewer than this share still go on."""


@dataclass(frozen=True)
class BeamResult:
    """Best leaves of each row, best first.

    Attributes:
        leaves: int64 (U, k), −1 where fewer were found.
        scores: float32 (U, k), Σ log p / length^penalty; −inf where ``leaves`` is −1.
    """

    leaves: Tensor
    scores: Tensor


@dataclass(frozen=True)
class _Beams:
    """Hypotheses of R rows at one moment; every tensor has R rows."""

    user: Tensor  # (R,) row of the result
    states: Tensor  # (R, W) trie state, −1 dead
    tokens: Tensor  # (R, W) token that led there
    sums: Tensor  # (R, W) Σ log p, −inf dead
    parents: Tensor  # (R, W) beam of the step before that each continues
    leaves: Tensor  # (R, W) finished
    scores: Tensor  # (R, W)
    open: Tensor  # (R,) a better title may still come

    def rows(self, indices: Tensor) -> _Beams:
        return _Beams(
            **{name: getattr(self, name).index_select(0, indices) for name in self.__dataclass_fields__}
        )


class ConstrainedBeamSearch:
    """Finds the best titles after a prompt.

    Args:
        trie: titles as tokens, on the model's device.
        beam_width: W.
        length_penalty: exponent of the length in the score; 1 is the mean log-probability a token (BIGRec),
            0 the plain sum (D3).
        renormalized: a token's probability is taken among the tokens that continue some title, not among the
            vocabulary. With ``length_penalty`` 0 the score is then log P(title | the title is in the
            catalogue), where a forced token costs nothing: the probabilities of all titles sum to 1.
    """

    def __init__(
        self,
        trie: TrieTensors,
        *,
        beam_width: int = 10,
        length_penalty: float = 1.0,
        renormalized: bool = False,
    ):
        """Keep the trie and the settings."""
        self.renormalized = renormalized
        self.trie = trie
        self.beam_width = beam_width
        self.length_penalty = length_penalty

    @torch.no_grad()
    def search(
        self,
        model: Any,
        start: Any,
        *,
        excluded: ExcludedLeaves | None = None,
        assistant: D3TokenMass | None = None,
        alpha: float = 1.0,
    ) -> BeamResult:
        """Search for every row of ``start``.

        Args:
            model: a :class:`~latentrec.models.latentr3.LatentR3Model`.
            start: its :class:`~latentrec.models.latentr3.DecodingState` after prompts and latents.
            excluded: leaves that must not be produced.
            assistant: D3's second opinion; the score of a token is
                ``alpha · log p_model + (1 − alpha) · log p_assistant``.
        """
        rows = start.logits_BWV.shape[0]
        device = self.trie.device
        width = self.beam_width
        result = BeamResult(
            torch.full((rows, width), -1, dtype=torch.int64, device=device),
            torch.full((rows, width), -torch.inf, device=device),
        )
        beams = _Beams(
            user=torch.arange(rows, device=device),
            states=torch.zeros(rows, 1, dtype=torch.int64, device=device),
            tokens=torch.zeros(rows, 1, dtype=torch.int64, device=device),
            sums=torch.zeros(rows, 1, device=device),
            parents=torch.zeros(rows, 1, dtype=torch.int64, device=device),
            leaves=result.leaves.clone(),
            scores=result.scores.clone(),
            open=torch.ones(rows, dtype=torch.bool, device=device),
        )
        state, length = start, 0
        graphed = isinstance(model, GraphedModel)  # a graph's rows are fixed: none is dropped between steps
        while True:
            children = self.trie.children(beams.states, excluded)
            log_probs = state.logits_BWV.gather(2, children.tokens)
            if self.renormalized:
                log_probs = log_probs - self.trie.log_normalizer(state.logits_BWV, beams.states)
            else:
                log_probs = log_probs - state.logits_BWV.logsumexp(dim=2, keepdim=True)
            if assistant is not None:
                second = assistant.log_probs(beams.states, children.states)
                log_probs = alpha * log_probs + (1 - alpha) * second
            length += 1
            beams = self._advance(beams, children.states, children.tokens, log_probs, children.valid, length)
            ended = ~beams.open
            determined = beams.open & (self.trie.leaves_below(beams.states) <= 1).all(dim=1)
            if graphed and not self.renormalized:  # a graph's step costs less than a pass over the tails
                determined = torch.zeros_like(determined)
            going = beams.open & ~determined
            n_going = int(going.sum())
            if n_going > (0 if graphed else REST) * len(going):
                state = model.decode_step(state, beams.tokens, beams.parents)
                continue
            if bool(ended.any()):
                self._store(result, beams.rows(ended.nonzero()[:, 0]))
            if bool(determined.any()):
                at = determined.nonzero()[:, 0]
                finished = self._read_tails(
                    model, state.rows(at), beams.rows(at), length, assistant, at, alpha
                )
                self._store(result, finished)
            if n_going == 0:
                return result
            at = going.nonzero()[:, 0]
            beams, state = beams.rows(at), state.rows(at)
            excluded = None if excluded is None else excluded.rows(at)
            assistant = None if assistant is None else assistant.rows(at)
            state = model.decode_step(state, beams.tokens, beams.parents)

    def _advance(
        self, beams: _Beams, states: Tensor, tokens: Tensor, log_probs: Tensor, valid: Tensor, length: int
    ) -> _Beams:
        """One step of the search: from the children of every beam to the next beams and finished titles."""
        width = self.beam_width
        rows, n_beams, n_children = states.shape
        totals = (beams.sums[..., None] + log_probs).masked_fill(~valid, -torch.inf)
        best, index = totals.view(rows, -1).topk(min(2 * width, n_beams * n_children), dim=1)
        parents = index // n_children
        states = states.view(rows, -1).gather(1, index)
        tokens = tokens.view(rows, -1).gather(1, index)
        found = best.isfinite()
        ends = self.trie.is_leaf[states] & found

        may_end = ends & beams.open[:, None]
        may_end[:, width:] = False
        scores = torch.where(may_end, best / length**self.length_penalty, -torch.inf)
        all_scores = torch.cat([beams.scores, scores], dim=1)
        all_leaves = torch.cat([beams.leaves, torch.where(may_end, self.trie.leaf_begin[states], -1)], dim=1)
        kept_scores, kept = all_scores.topk(width, dim=1)

        running, order = best.masked_fill(ends | ~found, -torch.inf).topk(min(width, best.shape[1]), dim=1)
        alive = running.isfinite()
        full = kept_scores[:, -1].isfinite()
        hopeless = running[:, 0] / length**self.length_penalty <= kept_scores[:, -1]
        still_open = beams.open & alive[:, 0] & ~(full & hopeless)
        return _Beams(
            user=beams.user,
            states=torch.where(alive, states.gather(1, order), -1),
            tokens=tokens.gather(1, order),
            sums=running,
            parents=parents.gather(1, order),
            leaves=all_leaves.gather(1, kept),
            scores=kept_scores,
            open=still_open,
        )

    def _read_tails(
        self,
        model: Any,
        state: Any,
        beams: _Beams,
        length: int,
        assistant: D3TokenMass | None,
        at: Tensor,
        alpha: float,
    ) -> _Beams:
        """Finish rows whose beams can each reach one title only: one pass, then the steps replayed."""
        mass = None if assistant is None else assistant.rows(at).log_mass_UZ
        parents = beams.parents
        while True:
            path_states, path_tokens = self._paths(beams.states)
            valid = path_states > 0
            if self.renormalized:  # forced tokens are certain
                log_probs = torch.zeros(valid.shape, device=self.trie.device)
            else:
                inputs = torch.cat([beams.tokens[..., None], path_tokens[..., :-1]], dim=2)
                hidden, state = continue_beams(model, state, inputs, parents)
                log_probs = self._log_probs(model, hidden, path_tokens, valid)
            if mass is not None:
                before = torch.cat([beams.states.clamp(min=0)[..., None], path_states[..., :-1]], dim=2)
                ahead = _gather_states(mass, path_states) - _gather_states(mass, before)
                log_probs = alpha * log_probs + (1 - alpha) * ahead
            parents = torch.arange(beams.states.shape[1], device=self.trie.device).expand_as(beams.states)
            for step in range(path_tokens.shape[2]):
                beams = self._advance(
                    beams,
                    _of_beams(path_states, step, parents),
                    _of_beams(path_tokens, step, parents),
                    _of_beams(log_probs, step, parents),
                    _of_beams(valid, step, parents) & (beams.states >= 0)[..., None],
                    length + step + 1,
                )
                parents = parents.gather(1, beams.parents)
            if not bool(beams.open.any()):
                return beams
            length += path_tokens.shape[2]

    def _paths(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """States and tokens on each beam's way to its only leaf, (R, W, S); 0 after the end.

        S is ``TAIL`` at most: the search may stop before the longest title is read.
        """
        trie = self.trie
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

    def _log_probs(self, model: Any, hidden: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
        """log p of each valid token after each hidden state, a bounded block of logits at a time."""
        hidden_nD, tokens_n = hidden[valid], tokens[valid]
        block = max(1, LOGITS_AT_ONCE // model.backbone.vocab_size)
        parts = []
        for begin in range(0, len(tokens_n), block):
            logits = model.backbone.logits(hidden_nD[begin : begin + block])
            chosen = logits.gather(1, tokens_n[begin : begin + block, None])[:, 0]
            parts.append(chosen - logits.logsumexp(dim=1))
        return torch.zeros(valid.shape, device=hidden.device).masked_scatter(valid, torch.cat(parts))

    def _store(self, result: BeamResult, beams: _Beams) -> None:
        found = beams.scores.isfinite()
        result.leaves[beams.user] = torch.where(found, beams.leaves, -1)
        result.scores[beams.user] = beams.scores


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


def _gather_states(mass_RZ: Tensor, states_RWS: Tensor) -> Tensor:
    return mass_RZ.gather(1, states_RWS.flatten(1)).view(states_RWS.shape)


def _of_beams(tensor_RWS: Tensor, step: int, origin_RW: Tensor) -> Tensor:
    """Column ``step`` of the tail that each beam came from, (R, W, 1)."""
    return tensor_RWS[..., step].gather(1, origin_RW)[..., None]
