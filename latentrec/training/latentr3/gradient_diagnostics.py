"""Which way a policy gradient points: its cosine with the gradients of the SFT loss and of the reward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentrec.models.latentr3 import IGNORED, AllowedTokensOf, LatentR3Model, PromptState
from latentrec.training.latentr3.grpo_loss import likelihood_reward


class GradientCosines:
    """Cosines on LatentRATT's parameters, summed over the parts of an optimizer batch.

    ``cosine_with_sft``: with the gradient of the clean latent's −log-likelihood. ``cosine_with_reward``: with
    that of the negative mean reward of the clean latent (likelihood rewards only). Both are gradients of
    losses: a positive cosine means that the update also lowers that loss.
    """

    def __init__(self, model: LatentR3Model, allowed_tokens: AllowedTokensOf | None):
        """Watch the LatentRATT of ``model``; ``allowed_tokens`` as in its ``answer_log_probs``."""
        assert model.latent_ratt is not None
        self._model = model
        self._allowed_tokens = allowed_tokens
        self._parameters = list(model.latent_ratt.parameters())
        self._sums: dict[str, Tensor] = {}

    def add(self, loss: Tensor, state: PromptState, labels_PL: Tensor, reward: str) -> None:
        """Add one part of the batch; ``loss`` keeps its graph."""
        self._add("policy", loss, retain=True)
        with torch.enable_grad():
            state = state.detached()
            log_probs = self._model.answer_log_probs(
                state, self._model.roll_out(state), labels_PL[:, None], allowed_tokens=self._allowed_tokens
            )
            likelihood = reward in ("perplexity", "nll", "clipped_perplexity")
            self._add("sft", -log_probs.sum(), retain=likelihood)
            if likelihood:
                rewards = likelihood_reward(reward, log_probs, labels_PL != IGNORED)
                self._add("reward", -rewards.sum(), retain=False)

    def finish(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Cosines of the gradients summed over micro-batches and processes; resets the sums."""
        sums = {name: reduce(value) for name, value in self._sums.items()}
        self._sums = {}
        policy = sums.pop("policy")
        return {
            f"cosine_with_{name}": float(torch.nn.functional.cosine_similarity(policy, value, dim=0))
            for name, value in sums.items()
        } | {"policy_gradient_norm": float(policy.norm())}

    def _add(self, name: str, loss: Tensor, *, retain: bool) -> None:
        gradients = torch.autograd.grad(loss, self._parameters, retain_graph=retain)
        flat = torch.cat([gradient.detach().float().flatten() for gradient in gradients])
        self._sums[name] = self._sums[name] + flat if name in self._sums else flat
