"""LARES (arXiv 2505.16865): a sequence encoder that thinks by applying its core-block k times.

``E = Dropout(LN(item + position))``; pre-block ``H = A(E)``; ``T_0 = 3 z`` with z from a truncated normal;
``T_i = C(LN(inject(T_{i−1}, H)))`` for i = 1 … k at *all* positions, with one C for all steps. Depth costs
time and no parameters. The state that scores the next item is T_k.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentrec.models.sequential.blocks import BLOCKS, BlockShape
from latentrec.models.sequential.encoder import SequenceEncoder, initialize
from latentrec.models.sequential.encoders import INJECTIONS
from latentrec.models.sequential.initial_state import noise_of_histories, sample_truncated_normal
from latentrec.models.sequential.layers import LAYER_NORM_EPS, PositionedItems

STATE_SCALE = 3.0


class Injection(nn.Module):
    """How H enters a step: ``add`` (T + H)/2, ``concat`` Linear(2d → d), ``linear`` σ(w)T + (1 − σ(w))H.

    ``linear`` has a weight for each dimension, ``linear_scalar`` one for all (as the authors' code has it).
    """

    def __init__(self, kind: str, hidden_size: int):
        super().__init__()
        if kind not in INJECTIONS:
            raise ValueError(f"injection is {kind!r}; there are: {', '.join(INJECTIONS)}")
        self.kind = kind
        if kind == "concat":
            self.merge = nn.Linear(2 * hidden_size, hidden_size)
        if kind in ("linear", "linear_scalar"):
            self.weight = nn.Parameter(torch.zeros(hidden_size if kind == "linear" else 1))

    def forward(self, thought_BLD: Tensor, hidden_BLD: Tensor) -> Tensor:
        """(B, L, d), (B, L, d) → (B, L, d)."""
        if self.kind == "concat":
            return self.merge(torch.cat([thought_BLD, hidden_BLD], dim=-1))
        if self.kind in ("linear", "linear_scalar"):
            return torch.lerp(hidden_BLD, thought_BLD, torch.sigmoid(self.weight))
        return 0.5 * (thought_BLD + hidden_BLD)


class LARES(SequenceEncoder):
    """Depth-recurrent encoder; see the module's docstring.

    Args:
        block: layer of both blocks, a name in :data:`~latentrec.models.sequential.blocks.BLOCKS`.
        pre_layers, core_layers: layers of A and of C.
        mean_steps: μ; the number of steps when scoring.
        injection: see :class:`Injection`.
        state_seed: of the initial states when scoring.

    Attributes:
        depth: steps taken when scoring; may be changed at any time.
        state_seed: seed of the initial states when scoring; may be changed at any time.
    """

    def __init__(
        self,
        *,
        n_items: int,
        hidden_size: int = 64,
        inner_dim: int = 256,
        heads: int = 2,
        block: str = "transformer",
        pre_layers: int = 2,
        core_layers: int = 2,
        mean_steps: int = 4,
        injection: str = "add",
        hidden_dropout: float = 0.5,
        attention_dropout: float = 0.5,
        max_length: int = 20,
        scoring: str = "dot",
        state_seed: int = 0,
    ):
        super().__init__(n_items=n_items, hidden_size=hidden_size, max_length=max_length, scoring=scoring)
        if block not in BLOCKS:
            raise ValueError(f"block is {block!r}; there are: {', '.join(BLOCKS)}")
        self._given = {
            "inner_dim": inner_dim,
            "heads": heads,
            "block": block,
            "pre_layers": pre_layers,
            "core_layers": core_layers,
            "mean_steps": mean_steps,
            "injection": injection,
            "hidden_dropout": hidden_dropout,
            "attention_dropout": attention_dropout,
            "state_seed": state_seed,
        }
        shape = BlockShape(
            hidden_size=hidden_size,
            inner_dim=inner_dim,
            heads=heads,
            hidden_dropout=hidden_dropout,
            attention_dropout=attention_dropout,
            max_length=max_length,
        )
        self.depth, self.state_seed = mean_steps, state_seed
        self.embed = PositionedItems(hidden_size, max_length, hidden_dropout)
        self.pre_block = nn.Sequential(*(BLOCKS[block](shape) for _ in range(pre_layers)))
        self.inject = Injection(injection, hidden_size)
        self.inject_norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.core_block = nn.Sequential(*(BLOCKS[block](shape) for _ in range(core_layers)))
        self.apply(initialize)

    def prelude(self, items_BL: Tensor) -> Tensor:
        """H (B, L, d): what the pre-block makes of the sequence."""
        return self.pre_block(self.embed(self.item_embedding(items_BL)))

    def step(self, thought_BLD: Tensor, hidden_BLD: Tensor) -> Tensor:
        """One step of thought: ``C(LN(inject(T, H)))``, (B, L, d)."""
        return self.core_block(self.inject_norm(self.inject(thought_BLD, hidden_BLD)))

    def trajectory(self, hidden_BLD: Tensor, steps: int, initial_BLD: Tensor | None = None) -> list[Tensor]:
        """T_1 … T_steps, each (B, L, d); the initial state is drawn afresh unless given."""
        thought_BLD = self.draw_initial(hidden_BLD) if initial_BLD is None else initial_BLD
        thoughts = []
        for _ in range(steps):
            thought_BLD = self.step(thought_BLD, hidden_BLD)
            thoughts.append(thought_BLD)
        return thoughts

    def draw_initial(self, like_BLD: Tensor) -> Tensor:
        """A random T_0 from torch's global generator."""
        return STATE_SCALE * sample_truncated_normal(tuple(like_BLD.shape), like_BLD.device)

    def initial_of(self, items_BL: Tensor) -> Tensor:
        """The repeatable T_0 used for scoring."""
        return STATE_SCALE * noise_of_histories(items_BL, self.hidden_size, self.state_seed)

    def states(self, items_BL: Tensor) -> Tensor:
        """T_depth (B, L, d) from the repeatable initial state."""
        return self.trajectory(self.prelude(items_BL), self.depth, self.initial_of(items_BL))[-1]

    def architecture(self) -> dict[str, Any]:
        """Keyword arguments that rebuild it."""
        return {**super().architecture(), **self._given}
