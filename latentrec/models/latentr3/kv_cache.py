"""Keys and values of what a backbone has read, as plain tensors that gradients flow through.

transformers' caches grow in place. Here a pass reads a prefix that it does not change and leaves its own
keys and values beside it, so one prompt serves any number of continuations, with or without gradients,
and a recomputed layer (gradient checkpointing) writes nothing twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from latentrec.models.latentr3.unpadding import UnpaddedRows


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of C cached positions in B rows.

    Attributes:
        layers: (keys, values) of each layer, each (B, heads, C, head_dim); keys already rotated.
        positions_BC: int64, the rotary position of each cached slot.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    positions_BC: Tensor

    def __len__(self) -> int:
        """C, the number of cached slots."""
        return self.positions_BC.shape[1]

    def extended(self, other: KeyValues) -> KeyValues:
        """These slots followed by those of ``other`` (same rows)."""
        layers = tuple(
            (torch.cat([k, new_k], dim=2), torch.cat([v, new_v], dim=2))
            for (k, v), (new_k, new_v) in zip(self.layers, other.layers, strict=True)
        )
        return KeyValues(layers, torch.cat([self.positions_BC, other.positions_BC], dim=1))

    def rows(self, indices: Tensor) -> KeyValues:
        """The rows at ``indices``, in that order, repeats allowed."""
        layers = tuple((k.index_select(0, indices), v.index_select(0, indices)) for k, v in self.layers)
        return KeyValues(layers, self.positions_BC.index_select(0, indices))

    def detached(self) -> KeyValues:
        """The same values without a graph."""
        return KeyValues(tuple((k.detach(), v.detach()) for k, v in self.layers), self.positions_BC)


class PassCache(DynamicCache):
    """The cache object passed to the backbone for one pass: reads a prefix, records what is new."""

    def __init__(self, prefix: KeyValues | None, n_layers: int, real: UnpaddedRows | None = None):
        """Stand on ``prefix``; ``None`` is an empty one. ``real``: states come flat and are kept in rows."""
        super().__init__()
        self._prefix = prefix
        self.real = real
        self._new: list[tuple[Tensor, Tensor] | None] = [None] * n_layers

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Record this pass's states once and return prefix and states together."""
        if self.real is not None:
            key_states, value_states = map(self.real.padded_heads, (key_states, value_states))
        self.record(layer_idx, key_states, value_states)
        if self._prefix is None:
            return key_states, value_states
        keys, values = self._prefix.layers[layer_idx]
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)

    def record(self, layer_idx: int, keys: Tensor, values: Tensor) -> None:
        """Keep a layer's keys and values, once."""
        if self._new[layer_idx] is None:
            self._new[layer_idx] = (keys, values)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Length of the prefix."""
        return 0 if self._prefix is None else len(self._prefix)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Keys that a query of this pass sees at most, and the offset of the first (always 0)."""
        return self.get_seq_length() + query_length, 0

    def recorded(self, positions_BS: Tensor) -> KeyValues:
        """Keys and values of this pass alone."""
        layers = tuple(states for states in self._new if states is not None)
        assert len(layers) == len(self._new), "a layer of the backbone did not use the cache"
        return KeyValues(layers, positions_BS)
