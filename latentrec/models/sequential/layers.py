"""The causal transformer layer of SASRec, also the default block of LARES."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrec.models.sequential.noise import drawn, is_part

LAYER_NORM_EPS = 1e-12


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout; on a CPU with one random byte an element in place of one 32-bit draw, four times as fast.

    The share is rounded to a multiple of 1/256 there, and the kept values are scaled by the rounded share's
    own inverse, so the expectation is exact.
    """
    if not training or share == 0.0:
        return x
    if x.device.type != "cpu":
        if not is_part():
            return F.dropout(x, share, True)
        ones = partial(torch.ones, device=x.device, dtype=x.dtype)
        return x * drawn(lambda shape: F.dropout(ones(shape), share, True), x.shape)
    dropped = round(256 * share)
    kept = drawn(_random_bytes, x.shape) >= dropped
    return x * (kept * (256 / max(1, 256 - dropped)))


def _random_bytes(shape: tuple[int, ...]) -> Tensor:
    count = math.prod(shape)
    words = torch.randint(-(2**63), 2**63 - 1, ((count + 7) // 8,))
    return words.view(torch.uint8)[:count].view(shape)


class Dropout(nn.Module):
    """:func:`dropout` as a module."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return dropout(x, self.share, self.training)


class CausalAttention(nn.Module):
    """Multi-head self-attention in which position p sees positions ≤ p only."""

    def __init__(self, hidden_size: int, heads: int, dropout: float):
        super().__init__()
        if hidden_size % heads:
            raise ValueError(f"hidden_size {hidden_size} is not a multiple of heads {heads}")
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, d) → (B, L, d)."""
        batch, length, hidden_size = x_BLD.shape
        q, k, v = (
            self.qkv(x_BLD)
            .view(batch, length, 3, self.heads, hidden_size // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        if self.training and self.dropout:
            mixed = attention_with_dropout(q, k, v, self.dropout)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(mixed.transpose(1, 2).reshape(batch, length, hidden_size))


def attention_with_dropout(q: Tensor, k: Tensor, v: Tensor, share: float) -> Tensor:
    """Causal attention written out, (B, H, L, d/H) each; dropout falls on the attention weights."""
    length = q.shape[2]
    later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu_(1)
    scores_BHLL = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    weights_BHLL = scores_BHLL.masked_fill(later, -torch.inf).softmax(dim=-1)
    return dropout(weights_BHLL, share, training=True) @ v


class TransformerLayer(nn.Module):
    """Attention and a gelu feed-forward, each with dropout, residual and layer norm after it (post-norm)."""

    def __init__(
        self, *, hidden_size: int, inner_dim: int, heads: int, hidden_dropout: float, attention_dropout: float
    ):
        super().__init__()
        self.attention = CausalAttention(hidden_size, heads, attention_dropout)
        self.inner = nn.Linear(hidden_size, inner_dim)
        self.outer = nn.Linear(inner_dim, hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.output_norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(hidden_dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, d) → (B, L, d)."""
        x_BLD = self.attention_norm(x_BLD + self.dropout(self.attention(x_BLD)))
        return self.output_norm(x_BLD + self.dropout(self.outer(F.gelu(self.inner(x_BLD)))))


class PositionedItems(nn.Module):
    """``E = Dropout(LN(item vector + position embedding))``; positions count from the oldest item read."""

    def __init__(self, hidden_size: int, max_length: int, dropout: float):
        super().__init__()
        self.position_embedding = nn.Embedding(max_length, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(dropout)

    def forward(self, items_BLD: Tensor) -> Tensor:
        """Item vectors (B, L, d) → (B, L, d)."""
        return self.dropout(self.norm(items_BLD + self.position_embedding.weight[: items_BLD.shape[1]]))
