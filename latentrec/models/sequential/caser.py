"""Caser (Tang and Wang, WSDM 2018, arXiv 1809.07426): convolutions over the last few items."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrec.models.sequential.encoder import SequenceEncoder, initialize
from latentrec.models.sequential.layers import Dropout


class Caser(SequenceEncoder):
    """Horizontal and vertical convolutions over the image of the last ``window`` item vectors.

    Differences from the paper: no user vector, because users are known by their history only when served,
    and cross-entropy over all items. Every position is convolved over its own window, so one pass trains
    all prefixes of a user.

    Args:
        window: items in the image (the paper's L).
        horizontal_filters: filters of each height 1 … window.
        vertical_filters: filters of width 1 over the whole window.
    """

    def __init__(
        self,
        *,
        n_items: int,
        hidden_size: int = 64,
        window: int = 5,
        horizontal_filters: int = 16,
        vertical_filters: int = 4,
        hidden_dropout: float = 0.3,
        max_length: int = 20,
        scoring: str = "dot",
    ):
        super().__init__(n_items=n_items, hidden_size=hidden_size, max_length=max_length, scoring=scoring)
        self._shape = {
            "window": window,
            "horizontal_filters": horizontal_filters,
            "vertical_filters": vertical_filters,
            "hidden_dropout": hidden_dropout,
        }
        self.window = window
        self.horizontal = nn.ModuleList(
            nn.Linear(height * hidden_size, horizontal_filters) for height in range(1, window + 1)
        )
        self.vertical = nn.Linear(window, vertical_filters, bias=False)
        self.output = nn.Linear(horizontal_filters * window + vertical_filters * hidden_size, hidden_size)
        self.dropout = Dropout(hidden_dropout)
        self.apply(initialize)

    def states(self, items_BL: Tensor) -> Tensor:
        """State (B, L, d) at every position, from the window that ends there."""
        vectors_BLD = self.item_embedding(items_BL)
        padded = F.pad(vectors_BLD, (0, 0, self.window - 1, 0))
        image_BLDW = padded.unfold(1, self.window, 1)
        image_BLWD = image_BLDW.transpose(2, 3)
        features = [self.vertical(image_BLDW).flatten(2)]
        for height, convolution in enumerate(self.horizontal, start=1):
            patches = image_BLWD.unfold(2, height, 1).transpose(3, 4).flatten(3)
            features.append(F.relu(convolution(patches)).amax(dim=2))
        return self.output(self.dropout(torch.cat(features, dim=-1)))

    def architecture(self) -> dict[str, Any]:
        """Keyword arguments that rebuild it."""
        return {**super().architecture(), **self._shape}
