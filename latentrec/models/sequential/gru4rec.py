"""GRU4Rec (Hidasi et al., ICLR 2016, arXiv 1511.06939) with a full softmax over the catalogue."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from latentrec.models.sequential.encoder import SequenceEncoder, initialize
from latentrec.models.sequential.layers import Dropout


class GRU4Rec(SequenceEncoder):
    """GRU over item vectors; the state at p, through one linear layer, scores what follows p.

    ``hidden_dropout`` falls on the item vectors and between the GRU's layers. Differences from the paper:
    whole user sequences in place of sessions, and cross-entropy over all items in place of sampled losses.
    """

    def __init__(
        self,
        *,
        n_items: int,
        hidden_size: int = 64,
        inner_dim: int = 128,
        layers: int = 1,
        hidden_dropout: float = 0.3,
        max_length: int = 20,
        scoring: str = "dot",
    ):
        super().__init__(n_items=n_items, hidden_size=hidden_size, max_length=max_length, scoring=scoring)
        self._shape = {"inner_dim": inner_dim, "layers": layers, "hidden_dropout": hidden_dropout}
        self.dropout = Dropout(hidden_dropout)
        self.gru = nn.GRU(
            hidden_size,
            inner_dim,
            num_layers=layers,
            batch_first=True,
            dropout=hidden_dropout if layers > 1 else 0.0,
        )
        self.output = nn.Linear(inner_dim, hidden_size)
        self.apply(initialize)

    def states(self, items_BL: Tensor) -> Tensor:
        """State (B, L, d) at every position."""
        hidden_BLH, _ = self.gru(self.dropout(self.item_embedding(items_BL)))
        return self.output(hidden_BLH)

    def architecture(self) -> dict[str, Any]:
        """Keyword arguments that rebuild it."""
        return {**super().architecture(), **self._shape}
