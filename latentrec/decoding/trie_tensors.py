"""The trie on the model's device, and what a beam may say next: gathers only, no table over the vocabulary.

A mask over 150 thousand tokens is never built: the log-probabilities of a state's children are gathered
from the logits, so the cost of the constraint follows the number of children, not the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from latentrec.catalog import TokenTrie
from latentrec.models.latentr3 import AllowedTokens


@dataclass(frozen=True)
class Children:
    """Children of each beam's state, padded to the widest.

    Attributes:
        states: int64 (…, C), state that each edge leads to; 0 where invalid.
        tokens: int64 (…, C), 0 where invalid.
        valid: bool (…, C).
    """

    states: Tensor
    tokens: Tensor
    valid: Tensor


class TrieTensors:
    """A :class:`~latentrec.catalog.TokenTrie` as tensors of one device."""

    def __init__(self, trie: TokenTrie, device: torch.device | str = "cpu"):
        """Copy the arrays to ``device``."""
        self.trie = trie
        self.device = torch.device(device)
        for name in ("child_offsets", "child_tokens", "parents", "leaf_begin", "leaf_end", "leaf_lengths"):
            setattr(self, name, torch.from_numpy(getattr(trie, name)).to(self.device, torch.int64))
        self.child_counts = self.child_offsets[1:] - self.child_offsets[:-1]
        self.is_leaf = self.child_counts == 0

    child_offsets: Tensor
    child_tokens: Tensor
    parents: Tensor
    leaf_begin: Tensor
    leaf_end: Tensor
    leaf_lengths: Tensor

    def children(self, states: Tensor, excluded: ExcludedLeaves | None = None) -> Children:
        """What may follow.

        Args:
            states: int64 (U, W), −1 where a beam is dead.
            excluded: leaves that each row must not reach; states with nothing else below are invalid.
        """
        alive = states >= 0
        at = states.clamp(min=0)
        counts = self.child_counts[at] * alive
        place = torch.arange(max(int(counts.max()), 1), device=self.device)
        valid = place < counts[..., None]
        edges = torch.where(valid, self.child_offsets[at][..., None] + place, 0)
        next_states = edges + 1
        if excluded is not None:
            valid &= self._leaves_left(next_states, excluded) > 0
        return Children(next_states * valid, self.child_tokens[edges] * valid, valid)

    def log_normalizer(self, logits_UWV: Tensor, states: Tensor) -> Tensor:
        """Log normalizer over each state's children, (U, W, 1): log Σ exp of logits; −inf at a leaf."""
        children = self.children(states)
        own = logits_UWV.gather(2, children.tokens).masked_fill(~children.valid, -torch.inf)
        return own.logsumexp(dim=2, keepdim=True)

    def choices(self, sequences: Tensor, counted: Tensor) -> AllowedTokens:
        """What may stand at each position of sequences that are in the trie.

        Args:
            sequences: int64 (…, L), tokens from the first on.
            counted: bool (…, L), where there is one; a beginning of each sequence.

        Returns:
            The choices of the counted positions, in order.

        Raises:
            ValueError: a sequence is not in the trie.
        """
        stride = int(self.child_tokens.max()) + 1
        keys = (
            self.parents[1:] * stride + self.child_tokens
        )  # ascending: edges are in order of state and token
        states = torch.zeros_like(sequences)
        state = states[..., 0]
        for step in range(sequences.shape[-1]):
            states[..., step] = state
            wanted = state * stride + sequences[..., step]
            edge = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            if bool(((keys[edge] != wanted) & counted[..., step]).any()):
                raise ValueError(f"a sequence leaves the trie at its token {step + 1}")
            state = torch.where(counted[..., step], edge + 1, state)
        at = states[counted]
        counts = self.child_counts[at]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        edges = torch.arange(int(offsets[-1]), device=self.device)
        edges += (self.child_offsets[at] - offsets[:-1]).repeat_interleave(counts)
        return AllowedTokens(self.child_tokens[edges], offsets)

    def leaves_below(self, states: Tensor) -> Tensor:
        """int64 (U, W): leaves below each beam's state, excluded ones too; 0 where it is dead."""
        at = states.clamp(min=0)
        return (self.leaf_end[at] - self.leaf_begin[at]) * (states >= 0)

    @cached_property
    def undecided(self) -> UndecidedStates:
        """The states below which several titles are left."""
        return UndecidedStates(self)

    def _leaves_left(self, states: Tensor, excluded: ExcludedLeaves) -> Tensor:
        begin, end = self.leaf_begin[states], self.leaf_end[states]
        return end - begin - excluded.count_between(begin, end)


class UndecidedStates:
    """The K states with two leaves or more below them, in depth-first order: a subtree's are a run of places.

    Where probabilities are taken among the catalogue's titles, nothing else has to be read to know all of
    them: what follows any other state is certain.

    Attributes:
        states: int64 (K,), in depth-first order.
        place: int64 (Z,), where each state stands among ``states``; K for the others.
        below: int64 (Z,), how many of them a state's subtree has, itself included.
        depth: int64 (Z,), tokens from the root to each state.
    """

    def __init__(self, trie: TrieTensors):
        """Number them."""
        host = trie.trie
        depth = np.repeat(np.arange(host.depth + 1), np.diff(host.level_offsets))
        several = host.leaf_end - host.leaf_begin > 1
        states = np.flatnonzero(several)
        # On a chain without branches all states have the same leaves, and the upper one comes first.
        states = states[np.lexsort((depth[states], host.leaf_begin[states]))]
        place = np.full(host.n_states, len(states))
        place[states] = np.arange(len(states))
        below = several.astype(np.int64)
        for level in range(host.depth, 0, -1):
            here = slice(host.level_offsets[level], host.level_offsets[level + 1])
            np.add.at(below, host.parents[here], below[here])
        for name, array in (("states", states), ("place", place), ("below", below), ("depth", depth)):
            setattr(self, name, torch.from_numpy(array).to(trie.device, torch.int64))

    states: Tensor
    place: Tensor
    below: Tensor
    depth: Tensor

    def __len__(self) -> int:
        """K."""
        return len(self.states)

    def below_beams(self, states_UW: Tensor) -> Tensor:
        """int64 (U, W): undecided states in each beam's subtree; 0 where it is dead."""
        return self.below[states_UW.clamp(min=0)] * (states_UW >= 0)

    def places_of(self, states_UW: Tensor) -> Tensor:
        """int64 (U, W): place of each beam's state; K where it is decided or dead."""
        return torch.where(states_UW >= 0, self.place[states_UW.clamp(min=0)], len(self))


class ExcludedLeaves:
    """Leaves that each row must not produce."""

    def __init__(self, leaves_UX: Tensor, n_leaves: int):
        """``leaves_UX``: int64, distinct within a row, padded with ``n_leaves`` or more."""
        self._sorted = leaves_UX.sort(dim=1).values.contiguous()
        self.n_leaves = n_leaves

    @classmethod
    def of(cls, rows: list[list[int]], n_leaves: int, device: torch.device) -> ExcludedLeaves | None:
        """From one list a row; ``None`` when all are empty."""
        width = max(map(len, rows), default=0)
        if width == 0:
            return None
        padded = torch.full((len(rows), width), n_leaves, dtype=torch.int64)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        return cls(padded.to(device), n_leaves)

    def count_between(self, begin: Tensor, end: Tensor) -> Tensor:
        """How many excluded leaves lie in ``begin … end`` of each row; shapes (U, …)."""
        shape = begin.shape
        before = torch.searchsorted(self._sorted, begin.reshape(shape[0], -1).contiguous())
        upto = torch.searchsorted(self._sorted, end.reshape(shape[0], -1).contiguous())
        return (upto - before).reshape(shape)

    def mask(self) -> Tensor:
        """bool (U, F): True at excluded leaves."""
        rows = self._sorted.shape[0]
        mask = torch.zeros(rows, self.n_leaves + 1, dtype=torch.bool, device=self._sorted.device)
        return mask.scatter_(1, self._sorted.clamp(max=self.n_leaves), True)[:, :-1]

    def rows(self, indices: Tensor) -> ExcludedLeaves:
        """The rows at ``indices``."""
        return ExcludedLeaves(self._sorted.index_select(0, indices), self.n_leaves)
