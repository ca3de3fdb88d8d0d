"""Rows of unequal length computed without their padding.

Everything in a transformer but attention treats each token alone. A pass over B rows of which some are
shorter than S therefore lays the real tokens one after another, ``(1, n)``, and only attention goes back to
rows. Exact: padding was never read. On real titles up to two thirds of all positions are padding even in
length-sorted batches, for a batch is as wide as its longest title.

On a CPU each row then attends by itself, in its own length, with the causal kernel where its mask is causal;
elsewhere (where a kernel's start costs more than what it saves) all rows attend at once, padded and masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "latentrec_rows"
"""Name of :func:`attention` among transformers' implementations."""
WORTHWHILE = 0.9
"""Above this share of real positions, padding costs less than laying it aside."""


@dataclass(frozen=True)
class _RowAttention:
    """How the rows attend, one entry a row in each list.

    Attributes:
        keys_n: int64, the slots of (B × C) that some query of their row reads, row after row.
        key_counts: how many of them each row has.
        masks: bool (queries, keys) of the row; ``None``: every query reads every key, or causally.
        causal: whether ``None`` stands for causal.
    """

    keys_n: Tensor
    key_counts: list[int]
    masks: list[Tensor | None]
    causal: list[bool]


class UnpaddedRows:
    """Which of B × S positions hold tokens, and the way to the flat order and back."""

    def __init__(self, real_BS: Tensor, index_n: Tensor | None = None, *, by_row: bool | None = None):
        """Index the real positions.

        Args:
            real_BS: bool.
            index_n: int64, the same as indices into (B × S), where they are known.
            by_row: each row attends by itself (default: on a CPU).
        """
        self.real_BS = real_BS
        self.by_row = real_BS.device.type == "cpu" if by_row is None else by_row
        self.index_n = real_BS.flatten().nonzero()[:, 0] if index_n is None else index_n
        self._attentions: dict[int, tuple[Tensor | None, _RowAttention]] = {}

    @cached_property
    def counts(self) -> list[int]:
        """Tokens of each row."""
        return self.real_BS.sum(dim=1).tolist()

    @classmethod
    def of(cls, real_BS: Tensor | None, index_n: Tensor | None = None) -> UnpaddedRows | None:
        """For these positions; ``None`` where there is too little padding to matter, or nothing else."""
        if real_BS is None or real_BS.numel() == 0:
            return None
        count = int(real_BS.sum()) if index_n is None else len(index_n)
        if not 0 < count <= WORTHWHILE * real_BS.numel():
            return None
        return cls(real_BS, index_n)

    def flat(self, padded: Tensor) -> Tensor:
        """(B, S, …) → (1, n, …)."""
        return padded.flatten(0, 1).index_select(0, self.index_n)[None]

    def padded(self, flat: Tensor) -> Tensor:
        """(1, n, …) → (B, S, …), zero at padding."""
        rows, width = self.real_BS.shape
        slots = flat.new_zeros(rows * width, *flat.shape[2:])
        return slots.index_copy(0, self.index_n, flat[0]).unflatten(0, (rows, width))

    def padded_heads(self, flat: Tensor) -> Tensor:
        """(1, heads, n, d) → (B, heads, S, d)."""
        return self.padded(flat.transpose(1, 2)).transpose(1, 2)

    def attention(self, mask_B1SC: Tensor | None) -> _RowAttention:
        """What each row reads, worked out once a mask; ``None``: causal among the row's tokens."""
        known = self._attentions.get(id(mask_B1SC))
        if known is None:
            made = self._causal() if mask_B1SC is None else self._masked(mask_B1SC[:, 0])
            known = self._attentions[id(mask_B1SC)] = (
                mask_B1SC,
                made,
            )  # the mask is kept: its id stays its own
        return known[1]

    def _causal(self) -> _RowAttention:
        rows = len(self.counts)
        return _RowAttention(self.index_n, self.counts, [None] * rows, [True] * rows)

    def _masked(self, allowed_BSC: Tensor) -> _RowAttention:
        slots = allowed_BSC.shape[-1]
        keys, masks, causal = [], [], []
        for row, (real_S, allowed_SC) in enumerate(zip(self.real_BS, allowed_BSC, strict=True)):
            allowed = allowed_SC[real_S]
            read = allowed.any(dim=0).nonzero()[:, 0]
            mask = allowed.index_select(1, read)
            keys.append(read + row * slots)
            square = mask.shape[0] == mask.shape[1]
            causal.append(square and bool((mask == torch.ones_like(mask).tril()).all()))
            masks.append(None if causal[-1] or bool(mask.all()) else mask)
        return _RowAttention(torch.cat(keys), [len(part) for part in keys], masks, causal)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    unpadded_rows: UnpaddedRows | None = None,
    causal_rows: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' ``sdpa``; the same over flat queries (1, heads, n, d) where ``unpadded_rows`` are given.

    Args:
        key, value: (B, heads, C, d), padded.
        attention_mask: bool (B, 1, S, C), unless ``causal_rows``.
        causal_rows: each row is causal, and the mask stands for nothing.

    Returns:
        (B, S, heads, d), or (1, n, heads, d).
    """
    if unpadded_rows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    mask = None if causal_rows else attention_mask
    if unpadded_rows.by_row:
        return _by_row(module, query, key, value, unpadded_rows, mask, kwargs), None
    padded, _ = sdpa_attention_forward(
        module, unpadded_rows.padded_heads(query), key, value, mask, **{"is_causal": mask is None, **kwargs}
    )
    return unpadded_rows.flat(padded), None


def _by_row(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    real: UnpaddedRows,
    mask: Tensor | None,
    kwargs: dict[str, Any],
) -> Tensor:
    rows = real.attention(mask)
    queries = query.split(real.counts, dim=2)
    keys, values = (
        states.transpose(1, 2).flatten(0, 1).index_select(0, rows.keys_n).transpose(0, 1)[None]
        for states in (key, value)
    )
    outputs = [
        sdpa_attention_forward(
            module, q, k, v, m[None, None] if m is not None else None, is_causal=c, **kwargs
        )[0]
        for q, k, v, m, c in zip(
            queries,
            keys.split(rows.key_counts, dim=2),
            values.split(rows.key_counts, dim=2),
            rows.masks,
            rows.causal,
            strict=True,
        )
        if q.shape[2]
    ]
    return torch.cat(outputs, dim=1)


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
