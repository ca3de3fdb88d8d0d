"""What every ID-based sequence encoder shares: the item table, causal states at every position, scoring.

Conventions: sequences are right-padded with ``n_items`` (the padding row of the item table), so
a causal encoder needs no padding mask, and the state at position p is that of the prefix that ends there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

INIT_STD = 0.02
COSINE_SCALE = 16.0


class SequenceEncoder(nn.Module):
    """Base of SASRec, GRU4Rec, Caser and LARES.

    Args:
        n_items: size of the catalogue trained on; ids are 0 … n_items − 1, padding is ``n_items``.
        hidden_size: width d of item vectors and states.
        max_length: longest history that the encoder reads; callers cut longer ones from the left.
        scoring: ``dot``, or ``cosine`` (unit vectors, times a fixed scale of 16).
    """

    def __init__(self, *, n_items: int, hidden_size: int, max_length: int, scoring: str = "dot"):
        super().__init__()
        self.n_items, self.hidden_size, self.max_length, self.scoring = (
            n_items,
            hidden_size,
            max_length,
            scoring,
        )
        self.item_embedding = nn.Embedding(n_items + 1, hidden_size, padding_idx=n_items)

    def states(self, items_BL: Tensor) -> Tensor:
        """State (B, L, d) at every position: what the encoder knows after reading that prefix."""
        raise TypeError(f"{type(self).__name__} does not define states()")

    def last_states(self, items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """State (B, d) after the whole of each sequence; ``lengths_B`` ≥ 1."""
        return at_last_position(self.states(items_BL), lengths_B)

    def score(self, states_PD: Tensor, items_M: Tensor | None = None) -> Tensor:
        """Logits (P, n_items) of every item after each state; (P, M) of ``items_M`` where those are given."""
        items_MD = self.item_embedding.weight[: self.n_items]
        if items_M is not None:
            items_MD = F.embedding(items_M, self.item_embedding.weight)
        if self.scoring == "cosine":
            return COSINE_SCALE * F.normalize(states_PD, dim=-1) @ F.normalize(items_MD, dim=-1).T
        return states_PD @ items_MD.T

    def score_sampled(self, states_PD: Tensor, targets_P: Tensor, items_M: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P,) of each state's target and (P, M) of ``items_M``, by one look-up: each costs a gradient
        of the whole table's size."""
        vectors = F.embedding(torch.cat([targets_P, items_M]), self.item_embedding.weight)
        if self.scoring == "cosine":
            states_PD, vectors = COSINE_SCALE * F.normalize(states_PD, dim=-1), F.normalize(vectors, dim=-1)
        own_PD, items_MD = vectors.split([len(targets_P), len(items_M)])
        return (states_PD * own_PD).sum(dim=1), states_PD @ items_MD.T

    def score_pairs(self, states_PD: Tensor, items_PK: Tensor) -> Tensor:
        """Logits (P, K) of each state's own items."""
        items_PKD = F.embedding(items_PK, self.item_embedding.weight)
        if self.scoring == "cosine":
            states_PD, items_PKD = (
                COSINE_SCALE * F.normalize(states_PD, dim=-1),
                F.normalize(items_PKD, dim=-1),
            )
        return (items_PKD @ states_PD[:, :, None])[:, :, 0]

    def architecture(self) -> dict[str, Any]:
        """What rebuilds this module: the keyword arguments of its class."""
        return {
            "n_items": self.n_items,
            "hidden_size": self.hidden_size,
            "max_length": self.max_length,
            "scoring": self.scoring,
        }


def at_last_position(states_BLD: Tensor, lengths_B: Tensor) -> Tensor:
    """Pick the state of each sequence's last item: (B, L, d), (B,) → (B, d)."""
    return states_BLD[torch.arange(len(lengths_B), device=states_BLD.device), lengths_B - 1]


def initialize(module: nn.Module) -> None:
    """Normal(0, 0.02) for weights, zero for biases, one for norms, zero for the padding row."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()


def pad_right(
    sequences: Sequence[np.ndarray], padding: int, max_length: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Stack histories as (B, L) int64 and lengths (B,); only the last ``max_length`` items are kept."""
    cut = [np.asarray(sequence[-max_length:], dtype=np.int64) for sequence in sequences]
    lengths = np.array([len(sequence) for sequence in cut], dtype=np.int64)
    padded = np.full((len(cut), max(1, int(lengths.max(initial=1)))), padding, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(cut) if len(cut) else 0
    return torch.from_numpy(padded).to(device), torch.from_numpy(lengths).to(device)
