"""Decoding with LatentR³, one token of every beam at a time; the caller chooses the tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentrec.models.latentr3.backbone import Backbone
from latentrec.models.latentr3.prompt_state import DecodingState, LatentRollout, PromptState, own_slots


class IncrementalDecoding:
    """The part of :class:`~latentrec.models.latentr3.LatentR3Model` that writes answers.

    Shapes as there, and W beams a prompt.
    """

    backbone: Backbone
    n_latents: int
    encode_prompt: Callable[..., PromptState]
    roll_out: Callable[..., LatentRollout]

    @torch.no_grad()
    def start_decoding(self, input_ids_BT: Tensor, attention_mask_BT: Tensor | None = None) -> DecodingState:
        """Read prompts (as :meth:`encode_prompt`), think, and give the logits of the answer's first token."""
        return self.begin_answer(self.encode_prompt(input_ids_BT, attention_mask_BT))

    @torch.no_grad()
    def begin_answer(self, state: PromptState, *, latents_BND: Tensor | None = None) -> DecodingState:
        """Think after prompts that were read, and give the logits of the answer's first token.

        Args:
            state: of the prompts.
            latents_BND: latents to be used in place of the model's own (controls: mean, another sample's).
        """
        actions = None if latents_BND is None else latents_BND[:, None]
        rollout = self.roll_out(state, actions_BMND=actions)
        visible_BMT = state.branches.keys_BMT
        positions_B = state.branches.lengths_BM[:, 0]
        key_values, hidden_BMD = rollout.key_values, rollout.last_hidden_BMD
        if self.n_latents:
            last = rollout.actions_BMND[:, :, -1].to(self.backbone.model.dtype)
            visible_BMT = own_slots(visible_BMT, blocks=self.n_latents)
            positions = (positions_B + self.n_latents - 1)[:, None]
            hidden_BMD, new = self.backbone.run(last, positions, visible_BMT, key_values)
            key_values = key_values.extended(new)
        return DecodingState(
            self.backbone.logits(hidden_BMD),
            key_values,
            visible_BMT,
            positions_B + self.n_latents,
            rollout.actions_BMND[:, 0],
        )

    @torch.no_grad()
    def decode_step(self, state: DecodingState, tokens_BW: Tensor, parents_BW: Tensor) -> DecodingState:
        """Append one token to each of W beams.

        Args:
            state: beams so far.
            tokens_BW: the new token of each new beam.
            parents_BW: index of the beam of ``state`` that each new beam continues.
        """
        index = parents_BW[..., None].expand(-1, -1, state.visible_BWC.shape[-1])
        visible_BWC = own_slots(state.visible_BWC.gather(1, index), blocks=1)
        positions_BW = state.positions_B[:, None].expand_as(tokens_BW)
        hidden_BWD, new = self.backbone.run(
            self.backbone.embed(tokens_BW), positions_BW, visible_BWC, state.key_values
        )
        return DecodingState(
            self.backbone.logits(hidden_BWD),
            state.key_values.extended(new),
            visible_BWC,
            state.positions_B + 1,
            state.latents_BND,
        )
