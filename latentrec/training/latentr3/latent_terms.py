"""Whether a latent depends on the user: the share of its power that does, and training terms that ask for
it."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

USER_SHARE = "latent_user_share"
COLLAPSED = 0.01
"""Below this share a latent is the same for everybody, for all that rankings show."""
TEMPERATURE = 0.1

_log = logging.getLogger(__name__)


class UserShare:
    """Share of the latents' power that varies over users, ``1 − ‖mean r‖² / mean ‖r‖²``: from 0 to 1."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._count, self._power = 0, 0.0
        self._sum: Tensor | None = None

    def add(self, latents_SND: Tensor) -> UserShare:
        """Add a batch of latents, (S, N, d)."""
        latents = latents_SND.detach().double()
        total = latents.sum(dim=0)
        self._sum = total if self._sum is None else self._sum + total
        self._count += len(latents)
        self._power += float(latents.square().sum())
        return self

    def value(self) -> float:
        """The share of all that were added; 0 where there was no power."""
        if self._sum is None or self._power == 0.0:
            return 0.0
        mean_power = float(self._sum.square().sum()) / self._count
        return max(0.0, 1.0 - mean_power / self._power)


def warn_if_collapsed(share: float) -> str | None:
    """A sentence for the log and for ``model.json`` where the latent is a constant; ``None`` where it is
    not."""
    if share >= COLLAPSED:
        return None
    message = (
        f"the latent is nearly a constant: {share:.3%} of its power varies over users (below "
        f"{COLLAPSED:.0%}); "
        "it works as a pause token, and no gain may be called reasoning"
    )
    _log.warning(message)
    return message


def latent_loss(kind: str, latents_SND: Tensor, titles_SD: Tensor, targets_S: Tensor) -> Tensor:
    """A term that asks the latents to differ between users.

    ``variance``: how far the standard deviation over users stays below the latent's own root mean square,
    mean over dimensions (the hinge of VICReg, Bardes et al. 2022). ``contrastive``: InfoNCE between the last
    latent and the mean input embedding of the title bought next, over the batch's other titles (no gradient
    to the embeddings).

    Args:
        latents_SND: of the samples of a batch.
        titles_SD: mean embedding of each sample's target title.
        targets_S: equal for samples of the same title, which are no negatives of each other.
    """
    if kind == "variance":
        scale = latents_SND.detach().float().square().mean().sqrt().clamp(min=1e-6)
        std_ND = torch.sqrt(latents_SND.float().var(dim=0) + 1e-8)
        return F.relu(1 - std_ND / scale).mean()
    assert kind == "contrastive", kind
    latents = F.normalize(latents_SND[:, -1].float(), dim=-1)
    titles = F.normalize(titles_SD.detach().float(), dim=-1)
    scores_SS = latents @ titles.T / TEMPERATURE
    same_SS = targets_S[:, None] == targets_S[None, :]
    same_SS.fill_diagonal_(False)
    return F.cross_entropy(
        scores_SS.masked_fill(same_SS, -torch.inf), torch.arange(len(latents), device=latents.device)
    )
