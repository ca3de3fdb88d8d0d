"""Beam search over the titles of a catalogue, batched over users and beams, on a shared prompt cache.

Rules are those of transformers' beam search (2 × width candidates a step, a hypothesis ends when it is among
the best width, score = Σ log p / length^penalty, the same stopping rule), so lists and scores agree with
``generate(num_beams=…, prefix_allowed_tokens_fn=…)``. What differs is the cost:

- beams are *slots under a mask*, not rows: the prompt's keys and values exist once a user, and reordering
  beams moves no cache (:class:`~latentrec.models.latentr3.DecodingState`);
- the constraint gathers children's log-probabilities instead of masking the vocabulary;
- under probabilities among the catalogue's titles, the rest of the tree below a user's beams is read in a
  single pass as soon as it is small (:mod:`~latentrec.decoding.read_ahead`), and the remaining steps are
  replayed on its log-probabilities;
- under probabilities among the vocabulary that holds once every beam can reach one title only, a few tokens
  at a time (the *tail*).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentrec.decoding.cuda_graphs import GraphedModel
from latentrec.decoding.d3 import D3TokenMass
from latentrec.decoding.read_ahead import read_ahead
from latentrec.decoding.tails import continue_beams, tail_log_probs, tail_paths
from latentrec.decoding.trie_tensors import Children, ExcludedLeaves, TrieTensors

REST = 0.75
"""Rows are dropped from the batch when fewer than this share still go on."""
READ_AHEAD, READ_AHEAD_ALONE = 64, 128
"""States a row that are read in one pass, the search replayed on them; and of one row alone, whose
passes cost what reading the weights costs. Chosen on Office Products and CDs among 16, 32, 64, 128, 256, 512,
from scratch in fp32 and with SmolLM2-135M in bf16."""


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
        read_ahead: states a row that are read in one pass, where ``renormalized`` (``None``:
            :data:`READ_AHEAD`); 0: one token of each beam at a time until all titles are decided.
    """

    def __init__(
        self,
        trie: TrieTensors,
        *,
        beam_width: int = 10,
        length_penalty: float = 1.0,
        renormalized: bool = False,
        read_ahead: int | None = None,
    ):
        """Keep the trie and the settings."""
        self.read_ahead = read_ahead
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
            length += 1
            beams = self._advance_to(children, beams, log_probs, length, assistant, alpha)
            ended = ~beams.open
            readable = beams.open & self._is_readable(beams.states, graphed)
            going = beams.open & ~readable
            n_going = int(going.sum())
            if n_going > (0 if graphed else REST) * len(going):
                state = model.decode_step(state, beams.tokens, beams.parents)
                continue
            if bool(ended.any()):
                self._store(result, beams.rows(ended.nonzero()[:, 0]))
            if bool(readable.any()):
                at = readable.nonzero()[:, 0]
                self._store(result, self._finish(model, state, beams, length, at, excluded, assistant, alpha))
            if n_going == 0:
                return result
            at = going.nonzero()[:, 0]
            beams, state = beams.rows(at), state.rows(at)
            excluded = None if excluded is None else excluded.rows(at)
            assistant = None if assistant is None else assistant.rows(at)
            state = model.decode_step(state, beams.tokens, beams.parents)

    def _is_readable(self, states: Tensor, graphed: bool) -> Tensor:
        """bool (R,): whether the rest of a row's search is read at once rather than step by step.

        A recorded graph's step costs less than a pass of another shape: with graphs only what is certain.
        """
        if self.renormalized:
            most = self.read_ahead
            if most is None:
                most = 0 if graphed else READ_AHEAD_ALONE if len(states) == 1 else READ_AHEAD
            return self.trie.undecided.below_beams(states).sum(dim=1) <= most
        return (self.trie.leaves_below(states) <= (-1 if graphed else 1)).all(dim=1)

    def _finish(
        self,
        model: Any,
        state: Any,
        beams: _Beams,
        length: int,
        at: Tensor,
        excluded: ExcludedLeaves | None,
        assistant: D3TokenMass | None,
        alpha: float,
    ) -> _Beams:
        """Search the rows ``at``, which are readable, to their end."""
        state, beams = state.rows(at), beams.rows(at)
        assistant = None if assistant is None else assistant.rows(at)
        if not self.renormalized:
            return self._read_tails(model, state, beams, length, assistant, alpha)
        excluded = None if excluded is None else excluded.rows(at)
        ahead = read_ahead(model, state, self.trie, beams.states, beams.parents, length)
        while bool(beams.open.any()):
            children = self.trie.children(beams.states, excluded)
            log_probs = ahead.of_children(
                self.trie.undecided.places_of(beams.states), children.tokens.shape[2]
            )
            length += 1
            beams = self._advance_to(children, beams, log_probs, length, assistant, alpha)
        return beams

    def _advance_to(
        self,
        children: Children,
        beams: _Beams,
        log_probs: Tensor,
        length: int,
        assistant: D3TokenMass | None,
        alpha: float,
    ) -> _Beams:
        """One step, with the assistant's opinion of the children if there is one."""
        if assistant is not None:
            second = assistant.log_probs(beams.states, children.states)
            log_probs = alpha * log_probs + (1 - alpha) * second
        return self._advance(beams, children.states, children.tokens, log_probs, children.valid, length)

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
        alpha: float,
    ) -> _Beams:
        """Finish rows whose beams can each reach one title only: one pass, then the steps replayed."""
        mass = None if assistant is None else assistant.log_mass_UZ
        parents = beams.parents
        while True:
            path_states, path_tokens = tail_paths(self.trie, beams.states)
            valid = path_states > 0
            inputs = torch.cat([beams.tokens[..., None], path_tokens[..., :-1]], dim=2)
            hidden, state = continue_beams(model, state, inputs, parents)
            log_probs = tail_log_probs(model, hidden, path_tokens, valid)
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

    def _store(self, result: BeamResult, beams: _Beams) -> None:
        found = beams.scores.isfinite()
        result.leaves[beams.user] = torch.where(found, beams.leaves, -1)
        result.scores[beams.user] = beams.scores


def _gather_states(mass_RZ: Tensor, states_RWS: Tensor) -> Tensor:
    return mass_RZ.gather(1, states_RWS.flatten(1)).view(states_RWS.shape)


def _of_beams(tensor_RWS: Tensor, step: int, origin_RW: Tensor) -> Tensor:
    """Column ``step`` of the tail that each beam came from, (R, W, 1)."""
    return tensor_RWS[..., step].gather(1, origin_RW)[..., None]
