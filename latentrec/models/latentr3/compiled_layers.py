"""Decoder layers through ``torch.compile``, each with what it adds to the cache, as one graph for all layers.

A cache object that all layers share cannot be traced once: it tells them apart by a number, and each number
would be a graph of its own. Here a layer is handed its own part of the prefix as tensors and gives its own
keys and values back as tensors, so that the layers differ in nothing but weights. Lengths are symbolic: a
batch of another shape compiles nothing new.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentrec.models.latentr3.kv_cache import PassCache
from latentrec.models.latentr3.unpadding import UnpaddedRows


class _LayerCache:
    """What one layer sees of the cache while it is traced."""

    def __init__(self, keys: Tensor | None, values: Tensor | None, real: UnpaddedRows | None):
        self.prefix, self.real = (keys, values), real
        self.new: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int = 0, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.real is not None:
            key_states, value_states = map(self.real.padded_heads, (key_states, value_states))
        self.new = (key_states, value_states)
        keys, values = self.prefix
        if keys is None or values is None:
            return key_states, value_states
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)


def _layer_pass(
    layer: Any,
    hidden: Tensor,
    keys: Tensor | None,
    values: Tensor | None,
    real: UnpaddedRows | None,
    inputs: dict[str, Any],
) -> tuple[Any, Tensor, Tensor]:
    """The layer's output, and the keys and values that it made."""
    cache = _LayerCache(keys, values, real)
    output = type(layer).forward(layer, hidden, past_key_values=cache, **inputs)
    assert cache.new is not None
    return output, *cache.new


def compile_layers(layers: Any, backend: str) -> None:
    """Replace every layer's ``forward``; a pass over another cache than :class:`PassCache` runs as before."""
    compiled = torch.compile(_layer_pass, dynamic=True, backend=backend)
    for index, layer in enumerate(layers):
        layer.forward = _forward(layer, index, compiled)


def _forward(layer: Any, index: int, compiled: Callable[..., tuple[Any, Tensor, Tensor]]) -> Any:
    attention = layer.self_attn

    def forward(hidden_states: Tensor, *args: Any, **inputs: Any) -> Any:
        cache = inputs.get("past_key_values")
        if args or type(cache) is not PassCache:
            return type(layer).forward(layer, hidden_states, *args, **inputs)
        del inputs["past_key_values"]
        keys, values = cache.prefix_of(index)
        own, attention.layer_idx = attention.layer_idx, 0  # alike for the tracer
        try:
            output, new_keys, new_values = compiled(layer, hidden_states, keys, values, cache.real, inputs)
        finally:
            attention.layer_idx = own
        cache.record(index, new_keys, new_values)
        return output

    return forward
