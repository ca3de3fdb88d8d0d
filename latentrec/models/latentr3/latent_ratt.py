"""LatentRATT: one attention layer that reads a prompt's hidden states and writes a latent token (§3.2).

``r = softmax(q k^T / √d) v`` with ``q`` from the last position and ``k``, ``v`` from every position of the
prompt. One head, three ``Linear(d, d)`` with bias, a rotary embedding of its own on q and k (base 1000,
dimension d, positions from 0 over the prompt's real tokens); no output projection, residual or norm.
It has 3 (d² + d) parameters: 7,082,496 at d = 1536.

``width`` other than d is an option of ours: the attention then has its own width w, and an output
projection ``Linear(w, d)`` brings the latent back to the size of an input embedding.

Weights sum to one, so ``Σ w_t (W_v h_t + b_v) = W_v (Σ w_t h_t) + b_v``: hidden states are averaged first,
and the value projection runs once a latent instead of once a position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROTARY_BASE = 1000.0


class LatentRATT(nn.Module):
    """Latent Reasoning ATTention over one or many branches of a row.

    Shapes: B rows, M branches a row (each reads its own part of the row), T positions, E earlier latents of
    the branch, d hidden size.
    """

    def __init__(self, hidden_size: int, width: int | None = None):
        """Make the projections; ``width`` (default: ``hidden_size``) is even for the rotary embedding."""
        super().__init__()
        self.width = hidden_size if width is None else width
        self.q_proj = nn.Linear(hidden_size, self.width)
        self.k_proj = nn.Linear(hidden_size, self.width)
        self.v_proj = nn.Linear(hidden_size, self.width)
        self.out_proj = nn.Identity() if self.width == hidden_size else nn.Linear(self.width, hidden_size)

    def keys(self, hidden_BTD: Tensor, positions_BT: Tensor) -> Tensor:
        """Rotated keys of hidden states at the positions given."""
        return _rotate(self.k_proj(hidden_BTD.to(self.q_proj.weight.dtype)), positions_BT)

    def forward(
        self,
        query_hidden_BMD: Tensor,
        query_positions_BM: Tensor,
        keys_BTD: Tensor,
        hidden_BTD: Tensor,
        visible_BMT: Tensor,
        earlier: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The latent of each branch, (B, M, d).

        Args:
            query_hidden_BMD: hidden state at each branch's last position.
            query_positions_BM: that position, counted from 0 over the branch's real tokens.
            keys_BTD: of the row, from :meth:`keys`.
            hidden_BTD: the row's hidden states, which the keys were made from.
            visible_BMT: bool, positions of the row that belong to the branch's prompt.
            earlier: keys and hidden states (B, M, E, d) of the branch's earlier latents.
        """
        dtype = self.q_proj.weight.dtype
        query_BMD = self._query(query_hidden_BMD, query_positions_BM)
        scores_BMT = _scores(query_BMD, keys_BTD, visible_BMT)
        if earlier is None:
            weights_BMT = _weights(scores_BMT, self.width)
            read_BMD = torch.einsum("bmt,btd->bmd", weights_BMT, hidden_BTD.to(dtype))
            return self.out_proj(self.v_proj(read_BMD))
        earlier_keys, earlier_hidden = earlier
        scores_BME = torch.einsum("bmd,bmed->bme", query_BMD, earlier_keys)
        weights = _weights(torch.cat([scores_BMT, scores_BME], dim=-1), self.width)
        weights_BMT, weights_BME = weights.split([scores_BMT.shape[-1], scores_BME.shape[-1]], dim=-1)
        read_BMD = torch.einsum("bmt,btd->bmd", weights_BMT, hidden_BTD.to(dtype))
        read_BMD = read_BMD + torch.einsum("bme,bmed->bmd", weights_BME, earlier_hidden.to(dtype))
        return self.out_proj(self.v_proj(read_BMD))

    def attention(
        self, query_hidden_BMD: Tensor, query_positions_BM: Tensor, keys_BTD: Tensor, visible_BMT: Tensor
    ) -> Tensor:
        """The first latent's weights (B, M, T) on a row's positions; arguments as in :meth:`forward`."""
        query_BMD = self._query(query_hidden_BMD, query_positions_BM)
        return _weights(_scores(query_BMD, keys_BTD, visible_BMT), self.width)

    def _query(self, hidden_BMD: Tensor, positions_BM: Tensor) -> Tensor:
        return _rotate(self.q_proj(hidden_BMD.to(self.q_proj.weight.dtype)), positions_BM)


def _scores(query_BMD: Tensor, keys_BTD: Tensor, visible_BMT: Tensor) -> Tensor:
    scores_BMT = torch.einsum("bmd,btd->bmt", query_BMD, keys_BTD)
    return scores_BMT.masked_fill(~visible_BMT, torch.finfo(scores_BMT.dtype).min)


class PauseTokens(nn.Module):
    """N learnt vectors in the latents' place, the same for every prompt: a control without reasoning.

    A latent that says nothing of the user can do no more than these (Goyal et al. 2023, "pause tokens").
    """

    def __init__(self, n_latents: int, hidden_size: int, std: float = 0.02):
        """Draw the vectors as a backbone draws its embeddings."""
        super().__init__()
        self.tokens_ND = nn.Parameter(torch.randn(n_latents, hidden_size) * std)


def _weights(scores: Tensor, width: int) -> Tensor:
    return torch.softmax(scores.float() * width**-0.5, dim=-1).to(scores.dtype)


def _rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary embedding over the whole last dimension, halves convention (x₁, x₂) → (−x₂, x₁)."""
    half = x.shape[-1] // 2
    frequencies = ROTARY_BASE ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = positions[..., None].float() * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
