"""SASRec (Kang and McAuley, ICDM 2018, arXiv 1808.09781), trained with a full softmax over the catalogue."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from latentrec.models.sequential.encoder import SequenceEncoder, initialize
from latentrec.models.sequential.layers import PositionedItems, TransformerLayer


class SASRec(SequenceEncoder):
    """Causal transformer over item and position embeddings; the state at p scores what follows p.

    Differences from the paper, as is usual since: cross-entropy over all items in place of one sampled
    negative, gelu, post-norm, and dropout of hidden states and of attention set apart.
    """

    def __init__(
        self,
        *,
        n_items: int,
        hidden_size: int = 64,
        inner_dim: int = 256,
        layers: int = 2,
        heads: int = 2,
        hidden_dropout: float = 0.5,
        attention_dropout: float = 0.5,
        max_length: int = 20,
        scoring: str = "dot",
    ):
        super().__init__(n_items=n_items, hidden_size=hidden_size, max_length=max_length, scoring=scoring)
        self._shape = {"inner_dim": inner_dim, "layers": layers, "heads": heads}
        self._dropout = {"hidden_dropout": hidden_dropout, "attention_dropout": attention_dropout}
        self.embed = PositionedItems(hidden_size, max_length, hidden_dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(hidden_size=hidden_size, inner_dim=inner_dim, heads=heads, **self._dropout)
            for _ in range(layers)
        )
        self.apply(initialize)

    def states(self, items_BL: Tensor) -> Tensor:
        """State (B, L, d) at every position."""
        hidden_BLD = self.embed(self.item_embedding(items_BL))
        for layer in self.layers:
            hidden_BLD = layer(hidden_BLD)
        return hidden_BLD

    def architecture(self) -> dict[str, Any]:
        """Keyword arguments that rebuild it."""
        return {**super().architecture(), **self._shape, **self._dropout}
