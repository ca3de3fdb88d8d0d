"""A title model that reads other latents than its own: the batch's mean, or another user's."""

from __future__ import annotations

from typing import Any

import torch


def with_other_latents(recommender: Any, control: str) -> Any:
    """``recommender`` itself, its model reading ``shuffled`` or ``mean`` latents from now on.

    Users are decoded in batches of like prompt length; another user's latent is that of the one half a batch
    away.
    """
    model = recommender.model
    begin = type(model).begin_answer

    @torch.no_grad()
    def begin_answer(state: Any) -> Any:
        own_BND = model.roll_out(state).means_BMND[:, 0]
        if control == "mean":
            other_BND = own_BND.mean(dim=0, keepdim=True).expand_as(own_BND)
        else:
            other_BND = own_BND.roll(max(1, len(own_BND) // 2), dims=0)
        return begin(model, state, latents_BND=other_BND)

    model.begin_answer = begin_answer
    return recommender
