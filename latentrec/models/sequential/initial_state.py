"""LARES's random initial state: drawn freely while training, repeatable when scoring.

When scoring, the noise at position p is a function of (seed, the items up to p) alone: a user's scores do
not change with the batch, the chunk or the padding that the user is scored in, and the state at p of a long
history equals the last state of its prefix.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from latentrec.models.sequential.noise import drawn

TRUNCATION = 3.0
_LOW = 0.5 * math.erfc(TRUNCATION / math.sqrt(2.0))
"""Mass of N(0, 1) below −3."""

# splitmix64's increment (2^64 over the golden ratio) and multipliers.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def sample_truncated_normal(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """N(0, 1) restricted to ±3, from torch's global generator; the first dimension counts rows of a batch."""
    return _quantile(drawn(partial(torch.rand, device=device), shape))


def noise_of_histories(items_BL: Tensor, hidden_size: int, seed: int) -> Tensor:
    """N(0, 1) restricted to ±3, (B, L, d), as a function of ``seed`` and of each prefix of items."""
    items = items_BL.cpu().numpy().astype(np.uint64)
    with np.errstate(over="ignore"):
        state_B = np.full(len(items), _mix(np.array([seed], dtype=np.uint64))[0])
        prefix_BL = np.empty_like(items)
        for position in range(items.shape[1]):
            state_B = _mix(state_B ^ (items[:, position] + np.uint64(1)))
            prefix_BL[:, position] = state_B
        counters_D = np.arange(1, hidden_size + 1, dtype=np.uint64) * _GOLDEN
        bits_BLD = _mix(prefix_BL[..., None] + counters_D)
    uniform_BLD = (bits_BLD >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    return _quantile(torch.from_numpy(uniform_BLD).to(items_BL.device))


def _mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele et al., OOPSLA 2014): each output bit depends on all input bits."""
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def _quantile(uniform: Tensor) -> Tensor:
    """Inverse distribution function of the truncated normal; ``uniform`` in [0, 1)."""
    inside = _LOW + (1.0 - 2.0 * _LOW) * uniform
    normal = math.sqrt(2.0) * torch.erfinv(2.0 * inside - 1.0)
    return normal.clamp_(-TRUNCATION, TRUNCATION)
