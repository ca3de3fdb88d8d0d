"""LatentR³ (arXiv 2505.19092): a causal language model that thinks in N continuous tokens before it answers.

``r_i = LatentRATT(H_{i−1})`` at the last position, where ``H_{i−1}`` are the hidden states over
``[x, r_1 … r_{i−1}]``; the title ``y`` is predicted from ``[x, r_1 … r_N]``. N = 0 is the backbone itself.

The prompt is read once and its keys and values serve everything that stands on it: M branches a row (the K
noised copies of stage 2, the prefixes of a user, the beams of a decoder) run beside each other in one pass
under a mask that keeps them apart. This is exact: a causal model's states do not depend on what follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from latentrec.core import UserError
from latentrec.models.latentr3.allowed_tokens import AllowedTokens
from latentrec.models.latentr3.backbone import Backbone
from latentrec.models.latentr3.latent_ratt import LatentRATT, PauseTokens
from latentrec.models.latentr3.prompt_state import (
    AnswerIndices,
    Branches,
    DecodingState,
    LatentRollout,
    PromptState,
)
from latentrec.models.latentr3.variants import ANSWER_READS, LATENT_SOURCES

IGNORED = -100
"""Label of a position that does not count."""


class LatentR3Model(nn.Module):
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

    Attributes:
        allowed_tokens: gives for answers (B, M, L), and where they have tokens (bool), the tokens among which
            each one's probability is taken; ``None``: the vocabulary. Not part of the weights.
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
        self.allowed_tokens: Callable[[Tensor, Tensor], AllowedTokens] | None = None
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
            right_padded: whether padding, if any, is on the right (``None``: look, which waits for the
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
                visible = _own_slots(branches.keys_BMT, blocks=i + 1)
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

    def answer_log_probs(
        self,
        state: PromptState,
        rollout: LatentRollout,
        answers_BML: Tensor,
        embeds_BMSD: Tensor | None = None,
        indices: AnswerIndices | None = None,
    ) -> Tensor:
        """log π(y_t | x, r, y_<t) of each answer token, fp32 (B, M, L); 0 where the label is ``IGNORED``.

        Args:
            state: prompts.
            rollout: their latents, for M branches.
            answers_BML: answer ids, right-padded with ``IGNORED``; M may be 1 for an answer that all share.
            embeds_BMSD: embeddings of all but the last, where they were looked up already.
            indices: where the answers' tokens stand, where it is known on the host.
        """
        hidden_nD, labels_n, counted_BML = self.answer_hidden(
            state, rollout, answers_BML, embeds_BMSD, indices
        )
        at_n = None if indices is None else indices.counted_n
        return self._label_log_probs(
            hidden_nD, labels_n, answers_BML.expand_as(counted_BML), counted_BML, at_n
        )

    def answers_are_greedy(self, state: PromptState, rollout: LatentRollout, answers_BML: Tensor) -> Tensor:
        """Whether greedy decoding writes the answer, bool (B, M): its every token is the likeliest."""
        hidden_nD, labels_n, counted_BML = self.answer_hidden(state, rollout, answers_BML)
        top_n = self.backbone.top_tokens(hidden_nD)
        right = torch.ones_like(counted_BML).masked_scatter(counted_BML, top_n == labels_n)
        return right.all(dim=-1)

    def answer_hidden(
        self,
        state: PromptState,
        rollout: LatentRollout,
        answers_BML: Tensor,
        embeds_BMSD: Tensor | None = None,
        indices: AnswerIndices | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states that predict the n counted answer tokens (n, d), the tokens (n,), where they stand
        (bool (B, M, L))."""
        rows, width = rollout.means_BMND.shape[:2]
        answers_BML = answers_BML.expand(rows, width, -1)
        length = answers_BML.shape[-1]
        counted_BML = answers_BML != IGNORED
        before_BMD = rollout.last_hidden_BMD
        hidden_parts = [] if self.n_latents else [before_BMD[:, :, None]]
        embeds = [rollout.actions_BMND[:, :, -1:]] if self.n_latents else []
        if length > 1:
            if embeds_BMSD is None:
                embeds_BMSD = self.backbone.embed(read_before(answers_BML))
            embeds.append(embeds_BMSD)
        if embeds:
            dtype = self.backbone.model.dtype
            read = torch.cat([part.to(dtype) for part in embeds], dim=2)
            read_BMS = counted_BML if self.n_latents else counted_BML[..., 1:]
            read_n = None
            if indices is not None:
                read_n = indices.counted_n if self.n_latents else indices.later_n
            hidden_parts.append(self._run_branches(state, rollout, read, read_BMS, read_n))
        hidden_BMLD = torch.cat(hidden_parts, dim=2)
        if indices is None:
            return hidden_BMLD[counted_BML], answers_BML[counted_BML], counted_BML
        at_n = indices.counted_n
        hidden_nD = hidden_BMLD.flatten(0, 2).index_select(0, at_n)
        return hidden_nD, answers_BML.flatten().index_select(0, at_n), counted_BML

    def plain_log_probs(self, prompts: list[Tensor], answers_BL: Tensor) -> Tensor:
        """N = 0 in one plain causal pass of the backbone over ``[x, y]``, fp32 (B, L); 0 at ``IGNORED``.

        Args:
            prompts: the prompts' ids, without padding.
            answers_BL: answer ids, right-padded with ``IGNORED``; at least one token each.
        """
        counted_BL = answers_BL != IGNORED
        counts = counted_BL.sum(dim=1).clamp(min=1).tolist()
        answers = answers_BL.clamp(min=0)
        # The last answer token is predicted but not read.
        rows = [
            torch.cat([prompt, answer[: count - 1]])
            for prompt, answer, count in zip(prompts, answers, counts, strict=True)
        ]
        ids_BT = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
        lengths_B1 = torch.tensor([[len(row)] for row in rows], device=ids_BT.device)
        hidden_BTD, _ = self.backbone.run(
            self.backbone.embed(ids_BT), positions_BT, None, real_BS=positions_BT < lengths_B1
        )
        begin_B1 = torch.tensor([[len(prompt) - 1] for prompt in prompts], device=ids_BT.device)
        at_BL = begin_B1 + torch.arange(answers_BL.shape[1], device=ids_BT.device)
        rows_BL = torch.arange(len(prompts), device=ids_BT.device)[:, None].expand_as(at_BL)
        hidden_nD = hidden_BTD[rows_BL[counted_BL], at_BL[counted_BL]]
        return self._label_log_probs(hidden_nD, answers_BL[counted_BL], answers_BL, counted_BL)

    @torch.no_grad()
    def start_decoding(
        self,
        input_ids_BT: Tensor,
        attention_mask_BT: Tensor | None = None,
        *,
        latents_BND: Tensor | None = None,
    ) -> DecodingState:
        """Read prompts, think, and give the logits of the answer's first token.

        Args:
            input_ids_BT, attention_mask_BT: as in :meth:`encode_prompt`.
            latents_BND: latents to be used in place of the model's own (controls: mean, another sample's).
        """
        return self.begin_answer(self.encode_prompt(input_ids_BT, attention_mask_BT), latents_BND=latents_BND)

    @torch.no_grad()
    def begin_answer(self, state: PromptState, *, latents_BND: Tensor | None = None) -> DecodingState:
        """Think after prompts that were read, and give the logits of the answer's first token.

        Arguments as in :meth:`start_decoding`; apart from it so that the phases can be timed.
        """
        actions = None if latents_BND is None else latents_BND[:, None]
        rollout = self.roll_out(state, actions_BMND=actions)
        visible_BMT = state.branches.keys_BMT
        positions_B = state.branches.lengths_BM[:, 0]
        key_values, hidden_BMD = rollout.key_values, rollout.last_hidden_BMD
        if self.n_latents:
            last = rollout.actions_BMND[:, :, -1].to(self.backbone.model.dtype)
            visible_BMT = _own_slots(visible_BMT, blocks=self.n_latents)
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
        visible_BWC = _own_slots(state.visible_BWC.gather(1, index), blocks=1)
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

    def forward(self, task: Any) -> Any:
        """Run ``task(self)``: one entry point for wrappers (DDP, autocast) that hook ``forward``."""
        return task(self)

    def _label_log_probs(
        self,
        hidden_nD: Tensor,
        labels_n: Tensor,
        answers: Tensor,
        counted: Tensor,
        at_n: Tensor | None = None,
    ) -> Tensor:
        """log π of the n counted tokens of ``answers`` (…, L) in their places (``at_n``, where they are
        known), 0 elsewhere."""
        allowed = None if self.allowed_tokens is None else self.allowed_tokens(answers, counted)
        log_probs = self.backbone.token_log_probs(hidden_nD, labels_n, allowed)
        zeros = torch.zeros(counted.shape, device=log_probs.device)
        if at_n is None:
            return zeros.masked_scatter(counted, log_probs)
        return zeros.flatten().index_copy(0, at_n, log_probs).view(counted.shape)

    def _run_branches(
        self,
        state: PromptState,
        rollout: LatentRollout,
        embeds_BMSD: Tensor,
        real_BMS: Tensor,
        real_n: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of S new tokens on each branch, after its prompt and its earlier latents."""
        rows, width, steps, size = embeds_BMSD.shape
        branches = (
            state.branches if width == state.branches.last_BM.shape[1] else state.branches.repeated(width)
        )
        device = embeds_BMSD.device
        before = max(self.n_latents - 1, 0)
        own_MM = torch.eye(width, dtype=torch.bool, device=device)
        causal_SS = torch.ones(steps, steps, dtype=torch.bool, device=device).tril()
        prompt = branches.keys_BMT[:, :, None].expand(-1, -1, steps, -1)
        latents = own_MM.repeat(1, before)[None, :, None].expand(rows, -1, steps, -1)
        answer = (own_MM[:, None, :, None] & causal_SS[None, :, None, :]).reshape(width, steps, width * steps)
        allowed = torch.cat([prompt, latents, answer[None].expand(rows, -1, -1, -1)], dim=-1)
        offsets_S = before + torch.arange(steps, device=device)
        positions = (branches.lengths_BM[..., None] + offsets_S).reshape(rows, width * steps)
        hidden, _ = self.backbone.run(
            embeds_BMSD.reshape(rows, width * steps, size),
            positions,
            allowed.reshape(rows, width * steps, -1),
            rollout.key_values,
            real_BMS.reshape(rows, width * steps),
            real_n,
        )
        return hidden.view(rows, width, steps, size)


def read_before(answers_BML: Tensor) -> Tensor:
    """The ids (B, M, L − 1) that are read to predict answers: all but the last, any where there is none."""
    return answers_BML[..., :-1].clamp(min=0)


def _own_slots(visible_BMC: Tensor, blocks: int) -> Tensor:
    """Append ``blocks`` blocks of M slots of which each branch sees its own."""
    rows, width = visible_BMC.shape[:2]
    own_MM = torch.eye(width, dtype=torch.bool, device=visible_BMC.device).repeat(1, blocks)
    return torch.cat([visible_BMC, own_MM.expand(rows, -1, -1)], dim=-1)
