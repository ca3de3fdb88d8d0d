"""Which tokens may stand at a position: what a probability is taken among, where not the whole vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AllowedTokens:
    """The tokens that may stand at each of n positions.

    Attributes:
        tokens_e: int64, those of all positions, one position after another.
        offsets: int64 (n + 1,); position i may hold ``tokens_e[offsets[i] : offsets[i + 1]]``.
    """

    tokens_e: Tensor
    offsets: Tensor

    def mask(self, begin: int, end: int, vocabulary: int) -> Tensor:
        """bool (end − begin, V): what may stand at the positions ``begin … end``."""
        offsets = self.offsets[begin : end + 1]
        rows = torch.arange(end - begin, device=offsets.device).repeat_interleave(offsets.diff())
        allowed = torch.zeros(end - begin, vocabulary, dtype=torch.bool, device=offsets.device)
        allowed[rows, self.tokens_e[int(offsets[0]) : int(offsets[-1])]] = True
        return allowed
