"""D3's assistant: an ID-based model's item probabilities as next-token probabilities along the trie.

The mass of a state is the probability of all items whose titles lie below it; the assistant's probability
of a token is the mass of the state it leads to over the mass of the state it leaves, which is the item mass
renormalized over the tokens that are allowed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentrec.decoding.trie_tensors import ExcludedLeaves, TrieTensors

SMALLEST_MASS = 1e-30


class D3TokenMass:
    """Log mass of every state for each row.

    Attributes:
        log_mass_UZ: float32, log of the mass below each state, excluded leaves left out.
    """

    def __init__(self, log_mass_UZ: Tensor):
        """Keep the masses; see :meth:`of_leaves`."""
        self.log_mass_UZ = log_mass_UZ

    @classmethod
    def of_leaves(
        cls, mass_UF: Tensor, trie: TrieTensors, excluded: ExcludedLeaves | None = None
    ) -> D3TokenMass:
        """Sum the leaves' mass upwards, level by level."""
        if excluded is not None:
            mass_UF = mass_UF.masked_fill(excluded.mask(), 0.0)
        mass_UZ = mass_UF.new_zeros(mass_UF.shape[0], trie.trie.n_states)
        leaf_states = trie.is_leaf.nonzero()[:, 0]
        mass_UZ[:, leaf_states] = mass_UF[:, trie.leaf_begin[leaf_states]]
        levels = trie.trie.level_offsets
        for depth in range(len(levels) - 2, 0, -1):
            level = slice(int(levels[depth]), int(levels[depth + 1]))
            mass_UZ.index_add_(1, trie.parents[level], mass_UZ[:, level].clone())
        return cls(mass_UZ.clamp(min=SMALLEST_MASS).log())

    def log_probs(self, states: Tensor, next_states: Tensor) -> Tensor:
        """log p(token | state) of the edges to ``next_states`` (U, W, C) from ``states`` (U, W)."""
        rows, width, n_children = next_states.shape
        ahead = self.log_mass_UZ.gather(1, next_states.reshape(rows, -1)).view(rows, width, n_children)
        here = self.log_mass_UZ.gather(1, states.clamp(min=0))
        return ahead - here[..., None]

    def rows(self, indices: Tensor) -> D3TokenMass:
        """The rows at ``indices``."""
        return D3TokenMass(self.log_mass_UZ.index_select(0, indices))


def leaf_mass(item_logits_UI: Tensor, leaf_of_item_I: Tensor, n_leaves: int) -> Tensor:
    """Probability of each leaf: softmax over all items, summed by leaf.

    Items that the assistant cannot score (−inf: new in the catalogue) get its smallest known probability,
    so that a new title stays reachable.
    """
    known = item_logits_UI.isfinite()
    floor = item_logits_UI.masked_fill(~known, torch.inf).min(dim=1, keepdim=True).values
    floor = torch.where(floor.isfinite(), floor, 0.0)
    probabilities = torch.where(known, item_logits_UI, floor).softmax(dim=1)
    mass = probabilities.new_zeros(probabilities.shape[0], n_leaves)
    return mass.index_add_(1, leaf_of_item_I, probabilities)
