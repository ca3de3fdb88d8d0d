"""The attention mask of a row that holds several prompts with one beginning.

All prefixes of a user's history share the instruction and the history's first titles. One row holds this
trunk once, followed by the few tokens that each prompt has of its own; the mask is a tree, so that no prompt
sees the tokens of another.
"""

from __future__ import annotations

import torch
from torch import Tensor

TRUNK = -1
"""Segment of a token of the trunk."""

PADDING = -2
"""Segment of a token that fills the row."""


def tree_mask(segments_BT: Tensor, trunk_lengths_BM: Tensor) -> tuple[Tensor, Tensor]:
    """Who may attend to whom in rows of B × T tokens with M branches.

    Args:
        segments_BT: ``TRUNK``, ``PADDING``, or the index of the branch that a token belongs to.
        trunk_lengths_BM: how many of the trunk's tokens each branch reads.

    Returns:
        bool (B, T, T): a token attends to its own segment and to as much of the trunk as its branch reads,
        never to a later token; bool (B, M, T): the tokens of each branch's whole prompt. A branch that only
        fills the batch sees the first token, since a row of the mask must not be empty.
    """
    width, branches = segments_BT.shape[1], trunk_lengths_BM.shape[1]
    index_T = torch.arange(width, device=segments_BT.device)
    in_trunk_BT = segments_BT == TRUNK
    own_BMT = segments_BT[:, None, :] == torch.arange(branches, device=segments_BT.device)[:, None]
    visible_BMT = own_BMT | (in_trunk_BT[:, None, :] & (index_T < trunk_lengths_BM[..., None]))
    visible_BMT |= ~visible_BMT.any(dim=-1, keepdim=True) & (index_T == 0)
    read_BT = trunk_lengths_BM.gather(1, segments_BT.clamp(min=0))
    reach_BT = torch.where(segments_BT >= 0, read_BT, index_T + 1)
    same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    causal_TT = index_T[:, None] >= index_T[None, :]
    to_trunk_BTT = in_trunk_BT[:, None, :] & (index_T < reach_BT[..., None])
    return causal_TT & (same_BTT | to_trunk_BTT), visible_BMT
