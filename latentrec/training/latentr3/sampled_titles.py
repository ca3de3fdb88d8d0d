"""GRPO that really draws its titles: G for each prompt, by the constrained decoder, all at once.

What :func:`~latentrec.training.latentr3.title_weights.gradient_weight` gives for ``grpo`` in closed form is
the expectation of this estimator (with ``loss_type dr_grpo`` up to a constant; ``grpo`` and ``bnpo`` weigh a
title by its length besides). Rewards, advantages and losses are trl's (``GRPOTrainer``, one iteration, so
that the ratio is 1):
``A = (R − mean) / (std + 1e-4)`` over the group with the sample standard deviation, R = 1 for the true
title, else 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentrec.catalog import Catalogue, TokenTrie
from latentrec.data import Dataset
from latentrec.decoding.title_recommender import title_sequences
from latentrec.decoding.trie_tensors import TrieTensors
from latentrec.models.latentr3 import IGNORED, LatentR3Model, LoadedLatentR3
from latentrec.training.common.policy_gradient import group_advantage
from latentrec.training.latentr3.title_objective_config import TitleObjectiveConfig


def sequence_loss(
    log_probs_PGL: Tensor,
    advantages_PG: Tensor,
    counted_PGL: Tensor,
    loss_type: str,
    *,
    total_prompts: Tensor | float,
    longest: int,
) -> Tensor:
    """trl's loss of the P prompts of a micro-batch, as their share of an optimizer batch.

    ``grpo``: each title's token mean, then the mean over titles. ``bnpo``: token mean over the micro-batch.
    ``dr_grpo``: token sum over the length of the longest title.

    Args:
        log_probs_PGL: of the tokens of drawn titles, 0 where there is none.
        total_prompts: of the optimizer batch.
        longest: tokens of the longest title that can be drawn.
    """
    ratio_PGL = torch.exp(log_probs_PGL - log_probs_PGL.detach())
    loss_PGL = -(ratio_PGL * advantages_PG[..., None]) * counted_PGL
    prompts, generations = advantages_PG.shape
    if loss_type == "grpo":
        means_PG = loss_PGL.sum(dim=-1) / counted_PGL.sum(dim=-1).clamp(min=1)
        return means_PG.sum() / (total_prompts * generations)
    if loss_type == "bnpo":
        return loss_PGL.sum() / counted_PGL.sum().clamp(min=1) * prompts / total_prompts
    assert loss_type == "dr_grpo", loss_type
    return loss_PGL.sum() / (total_prompts * generations * longest)


class SampledTitles:
    """Draws titles and gives the loss of a batch of plain (unpacked) rows."""

    def __init__(self, config: TitleObjectiveConfig, loaded: LoadedLatentR3, data: Dataset):
        """Tokenize the catalogue."""
        self._config = config
        self._trie = TokenTrie.build(title_sequences(Catalogue.from_dataset(data), loaded.prompt))
        self._tensors: TrieTensors | None = None
        self._seen: list[tuple[float, float]] = []

    def loss(
        self, model: LatentR3Model, inputs: dict[str, Any], total_prompts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss of a micro-batch, and log p of its true titles (P,)."""
        labels_P1L = inputs["labels"]
        drawn_PGL = self.draw(model, inputs["input_ids"], inputs["attention_mask"])
        both = pad_together(drawn_PGL, labels_P1L)
        rewards_PG = (both[:, :-1] == both[:, -1:]).all(dim=-1).float()
        advantages_PG = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
        if self._config.scale_rewards:
            advantages_PG = group_advantage(rewards_PG, dim=1)
        state = model.encode_prompt(inputs["input_ids"], inputs["attention_mask"])
        rollout = model.roll_out(state, copies=both.shape[1])
        assert self._tensors is not None  # made by the draw
        log_probs = model.answer_log_probs(state, rollout, both, allowed_tokens=self._tensors.choices)
        loss = sequence_loss(
            log_probs[:, :-1],
            advantages_PG,
            both[:, :-1] != IGNORED,
            self._config.loss_type,
            total_prompts=total_prompts,
            longest=int(self._trie.leaf_lengths.max()),
        )
        mixed = (rewards_PG.std(dim=1) > 0).float().mean()
        self._seen.append((float(rewards_PG.mean()), float(mixed)))
        return loss, log_probs[:, -1].sum(dim=-1)

    def figures(self) -> dict[str, float]:
        """Since the last call: ``reward``, share of drawn titles that are right, and ``groups_with_signal``,
        share of groups in which some are and some are not."""
        seen, self._seen = self._seen, []
        if not seen:
            return {}
        reward, mixed = torch.tensor(seen).mean(dim=0).tolist()
        return {"reward": reward, "groups_with_signal": mixed}

    @torch.no_grad()
    def draw(self, model: LatentR3Model, input_ids_PT: Tensor, attention_mask_PT: Tensor) -> Tensor:
        """``num_generations`` titles a prompt, drawn by their probability among the catalogue's.

        Returns:
            int64 (P, G, L), padded with ``IGNORED``.
        """
        if self._tensors is None or self._tensors.device != model.device:
            self._tensors = TrieTensors(self._trie, model.device)
        trie, generations = self._tensors, self._config.num_generations
        state = model.start_decoding(input_ids_PT, attention_mask_PT)
        prompts = len(input_ids_PT)
        at_PG = torch.zeros(prompts, generations, dtype=torch.int64, device=model.device)
        parents_PG = at_PG.clone()
        drawn: list[Tensor] = []
        while True:
            logits = state.logits_BWV.gather(
                1, parents_PG[..., None].expand(-1, -1, state.logits_BWV.shape[-1])
            )
            at_PG, tokens_PG = self._next(trie, logits, at_PG)
            drawn.append(tokens_PG)
            if bool((trie.leaves_below(at_PG) <= 1).all()):
                break
            state = model.decode_step(state, tokens_PG.clamp(min=0), parents_PG)
            parents_PG = torch.arange(generations, device=model.device).expand(prompts, -1)
        while not bool(trie.is_leaf[at_PG].all()):  # what is left of each title is forced
            at_PG, tokens_PG = self._next(trie, None, at_PG)
            drawn.append(tokens_PG)
        return torch.stack(drawn, dim=-1)

    def _next(self, trie: TrieTensors, logits_PGV: Tensor | None, at_PG: Tensor) -> tuple[Tensor, Tensor]:
        """The state that each title goes to and its token; ``IGNORED`` and the same state after its end."""
        children = trie.children(at_PG)
        ended_PG = trie.is_leaf[at_PG]
        if logits_PGV is None:
            choice_PG = torch.zeros_like(at_PG)
        else:
            logits = logits_PGV.gather(2, children.tokens).masked_fill(~children.valid, -torch.inf)
            logits[ended_PG] = 0.0
            probabilities = torch.softmax(logits, dim=-1)
            choice_PG = torch.multinomial(probabilities.flatten(0, 1), 1).view(at_PG.shape)
        states = children.states.gather(2, choice_PG[..., None])[..., 0]
        tokens = children.tokens.gather(2, choice_PG[..., None])[..., 0]
        return torch.where(ended_PG, at_PG, states), torch.where(ended_PG, IGNORED, tokens)


def pad_together(drawn_PGL: Tensor, labels_P1L: Tensor) -> Tensor:
    """Drawn titles and, last, the true one, padded with ``IGNORED`` to one length: (P, G + 1, L)."""
    length = max(drawn_PGL.shape[-1], labels_P1L.shape[-1])
    parts = [
        torch.nn.functional.pad(part, (0, length - part.shape[-1]), value=IGNORED)
        for part in (drawn_PGL, labels_P1L)
    ]
    return torch.cat(parts, dim=1)
