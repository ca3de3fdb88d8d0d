"""Causal layers that LARES can be built of: the recurrence wraps any of them.

Each maps (B, L, d) → (B, L, d) and lets position p read positions ≤ p only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrec.models.sequential.layers import LAYER_NORM_EPS, Dropout, TransformerLayer


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Sizes of one layer."""

    hidden_size: int
    inner_dim: int
    heads: int
    hidden_dropout: float
    attention_dropout: float
    max_length: int


class FilterLayer(nn.Module):
    """A learnable filter over time for each channel, then a feed-forward, post-norm.

    The causal counterpart of FMLP-Rec's layer (Zhou et al., WWW 2022, arXiv 2202.13556): its filter in the
    frequency domain is a circular convolution over the whole sequence, which would let a position see later
    items; here the convolution is causal, by the same fast Fourier transform on zero-padded sequences.
    """

    def __init__(self, shape: BlockShape):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(shape.max_length, shape.hidden_size))
        nn.init.normal_(self.kernel, std=0.02)
        self.inner = nn.Linear(shape.hidden_size, shape.inner_dim)
        self.outer = nn.Linear(shape.inner_dim, shape.hidden_size)
        self.filter_norm = nn.LayerNorm(shape.hidden_size, eps=LAYER_NORM_EPS)
        self.output_norm = nn.LayerNorm(shape.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(shape.hidden_dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, d) → (B, L, d)."""
        length = x_BLD.shape[1]
        spectrum = torch.fft.rfft(x_BLD, n=2 * length, dim=1) * torch.fft.rfft(
            self.kernel[:length], n=2 * length, dim=0
        )
        filtered_BLD = torch.fft.irfft(spectrum, n=2 * length, dim=1)[:, :length]
        x_BLD = self.filter_norm(x_BLD + self.dropout(filtered_BLD))
        return self.output_norm(x_BLD + self.dropout(self.outer(F.gelu(self.inner(x_BLD)))))


class GRULayer(nn.Module):
    """A GRU with dropout, residual and layer norm."""

    def __init__(self, shape: BlockShape):
        super().__init__()
        self.gru = nn.GRU(shape.hidden_size, shape.hidden_size, batch_first=True)
        self.norm = nn.LayerNorm(shape.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(shape.hidden_dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, d) → (B, L, d)."""
        return self.norm(x_BLD + self.dropout(self.gru(x_BLD)[0]))


def _transformer(shape: BlockShape) -> nn.Module:
    return TransformerLayer(
        hidden_size=shape.hidden_size,
        inner_dim=shape.inner_dim,
        heads=shape.heads,
        hidden_dropout=shape.hidden_dropout,
        attention_dropout=shape.attention_dropout,
    )


BLOCKS: dict[str, Callable[[BlockShape], nn.Module]] = {
    "transformer": _transformer,
    "filter": FilterLayer,
    "gru": GRULayer,
}
"""Layers by name. A new one is one class, one line here and its name in ``encoders.BLOCK_NAMES``."""
