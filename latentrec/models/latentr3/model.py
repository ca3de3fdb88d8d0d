"""LatentR³ (arXiv 2505.19092): a causal language model that thinks in N continuous tokens before it answers.

``r_i = LatentRATT(H_{i−1})`` at the last position, where ``H_{i−1}`` are the hidden states over
``[x, r_1 … r_{i−1}]``; the title ``y`` is predicted from ``[x, r_1 … r_N]``. N = 0 is the backbone itself.

The prompt is read once and its keys and values serve everything that stands on it: M branches a row (the K
noised copies of stage 2, the prefixes of a user, the beams of a decoder) run beside each other in one pass
under a mask that keeps them apart. This is exact: a causal model's states do not depend on what follows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from latentrec.core import UserError
from latentrec.models.latentr3.answer_likelihood import AnswerLikelihood
from latentrec.models.latentr3.backbone import Backbone
from latentrec.models.latentr3.incremental_decoding import IncrementalDecoding
from latentrec.models.latentr3.latent_ratt import LatentRATT, PauseTokens
from latentrec.models.latentr3.prompt_state import Branches, LatentRollout, PromptState, own_slots
from latentrec.models.latentr3.tree_mask import PADDING, tree_mask
from latentrec.models.latentr3.variants import ANSWER_READS, LATENT_SOURCES


class LatentR3Model(AnswerLikelihood, IncrementalDecoding, nn.Module):
    """Backbone and LatentRATT.

    Shapes: B rows, T prompt positions, M branches a row, N latent tokens, L answer tokens, d hidden size,
    V vocabulary.

    Args:
        backbone: a loaded ``AutoModelForCausalLM``.
        n_latents: N ≥ 0.
        latent_source: ``latent_ratt``, ``last_hidden`` (ablation: the last hidden state is the latent), or
            ``pause_token`` (control: learnt vectors, the same for every prompt).
        latent_width: width of LatentRATT's attention; ``None``: d, as published.
        answer_reads: ``prompt``: latents and answer attend to the prompt, as published; ``latents``: they do
            not (a bottleneck: what the answer knows of the prompt is what the latents say).

    """

    def __init__(
        self,
        backbone: Any,
        *,
        n_latents: int = 1,
        latent_source: str = "latent_ratt",
        latent_width: int | None = None,
        answer_reads: str = "prompt",
    ):
        """Compose; LatentRATT is initialized from torch's global generator.

        Raises:
            UserError: N is negative, a name unknown, LatentRATT's width odd (its rotary embedding), or an
                answer that reads only latents has none.
        """
        super().__init__()
        if n_latents < 0:
            raise UserError(
                f"reasoning_tokens is {n_latents}; it must be 0 (no reasoning) or more",
                code="config.bad_value",
            )
        if latent_source not in LATENT_SOURCES:
            raise UserError(
                f"latent is {latent_source!r}; allowed: {', '.join(LATENT_SOURCES)}", code="config.bad_value"
            )
        if answer_reads not in ANSWER_READS:
            raise UserError(
                f"answer_reads is {answer_reads!r}; allowed: {', '.join(ANSWER_READS)}",
                code="config.bad_value",
            )
        if answer_reads == "latents" and not n_latents:
            raise UserError(
                "answer_reads is 'latents', but reasoning_tokens is 0: the answer would read nothing",
                code="config.conflict",
            )
        self.backbone = Backbone(backbone)
        self.n_latents = n_latents
        self.answer_reads = answer_reads
        self.latent_source = latent_source
        self.latent_ratt: LatentRATT | None = None
        self.pause_tokens: PauseTokens | None = None
        if n_latents and latent_source == "latent_ratt":
            width = latent_width or self.backbone.hidden_size
            if width % 2:
                raise UserError(
                    f"LatentRATT's width is {width}; its rotary embedding needs an even one",
                    code="config.bad_value",
                )
            self.latent_ratt = LatentRATT(self.backbone.hidden_size, width)
        if n_latents and latent_source == "pause_token":
            self.pause_tokens = PauseTokens(n_latents, self.backbone.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.model.get_input_embeddings().weight.device

    def encode_prompt(
        self,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor | None = None,
        embeds_BTD: Tensor | None = None,
        *,
        right_padded: bool | None = None,
        real_n: Tensor | None = None,
    ) -> PromptState:
        """Read one prompt a row, padded on either side.

        Args:
            input_ids_BT: token ids.
            embeds_BTD: their embeddings, where they were looked up already.
            attention_mask_BT: 1 at real tokens, at least one a row; ``None``: no padding. Right padding
                costs nothing: the pass is then plainly causal, and what stands on it never sees the padding.
            right_padded: whether padding, if any, is on the right (``None``: find out, which waits for the
                device).
            real_n: as in :meth:`Backbone.run`.
        """
        length = input_ids_BT.shape[1]
        index_T = torch.arange(length, device=input_ids_BT.device)
        real_BT: Tensor | None = None
        if attention_mask_BT is None:
            mask_BT, right_padded = torch.ones_like(input_ids_BT, dtype=torch.bool), True
        else:
            real_BT = mask_BT = attention_mask_BT.bool()
        if right_padded is None:
            right_padded = bool(mask_BT[:, 0].all())
        if right_padded:
            positions_BT, allowed = index_T.expand_as(input_ids_BT), None
        else:
            positions_BT = (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)
            causal_TT = index_T[:, None] >= index_T[None, :]
            own_TT = torch.eye(length, dtype=torch.bool, device=input_ids_BT.device)
            allowed = (causal_TT & mask_BT[:, None, :]) | own_TT
        branches = Branches.of_prompts(mask_BT)
        return self.encode_rows(
            input_ids_BT, positions_BT, allowed, branches, real_BT, embeds_BTD, real_n=real_n
        )

    def encode_rows(
        self,
        input_ids_BT: Tensor,
        positions_BT: Tensor,
        allowed_BTT: Tensor | None,
        branches: Branches,
        real_BT: Tensor | None = None,
        embeds_BTD: Tensor | None = None,
        *,
        real_n: Tensor | None = None,
    ) -> PromptState:
        """Read rows whose positions may attend as ``allowed_BTT`` says (``None``: causally).

        ``real_BT``: bool, positions that are not padding (``None``: all), ``real_n`` their indices where
        they are known; ``embeds_BTD`` as in :meth:`encode_prompt`.
        """
        if embeds_BTD is None:
            embeds_BTD = self.backbone.embed(input_ids_BT)
        hidden_BTD, key_values = self.backbone.run(
            embeds_BTD, positions_BT, allowed_BTT, real_BS=real_BT, real_n=real_n
        )
        return PromptState(hidden_BTD, key_values, positions_BT, self.restrict(branches))

    def encode_packed(
        self,
        input_ids_BT: Tensor,
        positions_BT: Tensor,
        segments_BT: Tensor,
        trunk_lengths_BM: Tensor,
        last_BM: Tensor,
        lengths_BM: Tensor,
        embeds_BTD: Tensor | None = None,
        *,
        real_n: Tensor | None = None,
    ) -> PromptState:
        """Read rows that hold M prompts each, which share their beginning (the trunk).

        Args:
            input_ids_BT: the trunk, then each branch's own tokens, then padding.
            positions_BT: rotary position of each token within its prompt.
            segments_BT: ``TRUNK``, ``PADDING``, or the index of the branch that a token belongs to.
            trunk_lengths_BM: how many of the trunk's tokens each branch reads.
            last_BM: index in the row of each branch's last token.
            lengths_BM: number of tokens of each branch's prompt, its part of the trunk included.
            embeds_BTD, real_n: as in :meth:`encode_rows`.
        """
        allowed_BTT, visible_BMT = tree_mask(segments_BT, trunk_lengths_BM)
        branches = Branches(visible_BMT, last_BM, lengths_BM)
        return self.encode_rows(
            input_ids_BT,
            positions_BT,
            allowed_BTT,
            branches,
            segments_BT != PADDING,
            embeds_BTD,
            real_n=real_n,
        )

    def restrict(self, branches: Branches) -> Branches:
        """The branches as this model reads them: without the prompt's keys where the answer reads latents."""
        if self.answer_reads == "prompt":
            return branches
        return replace(branches, readable_BMT=torch.zeros_like(branches.visible_BMT))

    def roll_out(
        self,
        state: PromptState,
        *,
        copies: int = 1,
        noise_BMND: Tensor | None = None,
        actions_BMND: Tensor | None = None,
    ) -> LatentRollout:
        """Make the N latent tokens of every branch.

        Args:
            state: prompts.
            copies: repeat a single branch so often (K of stage 2).
            noise_BMND: added to each latent as it is made; later latents see it.
            actions_BMND: tokens to be read in the latents' place: ``means`` are then what LatentRATT gives
                after those actions (for densities, and for replacing a latent at inference).
        """
        branches = state.branches if copies == 1 else state.branches.repeated(copies)
        key_values = state.key_values
        last_hidden_BMD = hidden_BMD = branches.gather(state.hidden_BTD)
        rows, width, size = hidden_BMD.shape
        if self.n_latents == 0:
            none = hidden_BMD.new_zeros(rows, width, 0, size)
            return LatentRollout(none, none, key_values, last_hidden_BMD)
        keys = None
        if self.latent_ratt is not None:
            keys = self.latent_ratt.keys(state.hidden_BTD, state.positions_BT)
        earlier: tuple[Tensor, Tensor] | None = None
        means, actions = [], []
        for i in range(self.n_latents):
            positions_BM = branches.lengths_BM - 1 + i
            if self.pause_tokens is not None:
                mean_BMD = self.pause_tokens.tokens_ND[i].expand(rows, width, size)
            elif self.latent_ratt is None:
                mean_BMD = hidden_BMD
            else:
                assert keys is not None
                mean_BMD = self.latent_ratt(
                    hidden_BMD, positions_BM, keys, state.hidden_BTD, branches.visible_BMT, earlier
                )
            means.append(mean_BMD)
            if actions_BMND is not None:
                actions.append(actions_BMND[:, :, i])
            else:
                actions.append(mean_BMD if noise_BMND is None else mean_BMD + noise_BMND[:, :, i])
            if i + 1 < self.n_latents:
                embeds = actions[-1].to(self.backbone.model.dtype)
                visible = own_slots(branches.keys_BMT, blocks=i + 1)
                hidden_BMD, new = self.backbone.run(embeds, positions_BM + 1, visible, key_values)
                key_values = key_values.extended(new)
                if self.latent_ratt is not None:
                    own_keys = self.latent_ratt.keys(hidden_BMD, positions_BM + 1)
                    own = (own_keys[:, :, None], hidden_BMD[:, :, None])
                    earlier = (
                        own
                        if earlier is None
                        else (torch.cat([earlier[0], own[0]], 2), torch.cat([earlier[1], own[1]], 2))
                    )
        return LatentRollout(torch.stack(means, 2), torch.stack(actions, 2), key_values, last_hidden_BMD)

    @torch.no_grad()
    def latent_attention(self, state: PromptState) -> Tensor:
        """Where the first latent of each branch is read from: weights (B, M, T) over the row, sum 1.

        Raises:
            UserError: the model has no LatentRATT.
        """
        if self.latent_ratt is None:
            raise UserError(
                "this model has no LatentRATT (reasoning_tokens is 0, or its latent is another)",
                code="model.no_latent_ratt",
            )
        branches = state.branches
        keys_BTD = self.latent_ratt.keys(state.hidden_BTD, state.positions_BT)
        hidden_BMD = branches.gather(state.hidden_BTD)
        return self.latent_ratt.attention(hidden_BMD, branches.lengths_BM - 1, keys_BTD, branches.visible_BMT)

    def forward(self, task: Any) -> Any:
        """Run ``task(self)``: one entry point for wrappers (DDP, autocast) that hook ``forward``."""
        return task(self)
