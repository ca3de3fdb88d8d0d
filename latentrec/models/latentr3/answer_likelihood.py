"""Log-probabilities of given answers under LatentR³, for losses, rewards and validation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from latentrec.models.latentr3.allowed_tokens import AllowedTokens
from latentrec.models.latentr3.backbone import Backbone
from latentrec.models.latentr3.prompt_state import AnswerIndices, LatentRollout, PromptState

IGNORED = -100
"""Label of a position that does not count."""

AllowedTokensOf = Callable[[Tensor, Tensor], AllowedTokens]
"""From answers (…, L) and where they have tokens (bool): the tokens among which each one's probability is
taken."""


class AnswerLikelihood:
    """The part of :class:`~latentrec.models.latentr3.LatentR3Model` that scores answers that are given.

    Shapes as there.
    """

    backbone: Backbone
    n_latents: int

    def answer_log_probs(
        self,
        state: PromptState,
        rollout: LatentRollout,
        answers_BML: Tensor,
        embeds_BMSD: Tensor | None = None,
        indices: AnswerIndices | None = None,
        allowed_tokens: AllowedTokensOf | None = None,
    ) -> Tensor:
        """log π(y_t | x, r, y_<t) of each answer token, fp32 (B, M, L); 0 where the label is ``IGNORED``.

        Args:
            state: prompts.
            rollout: their latents, for M branches.
            answers_BML: answer ids, right-padded with ``IGNORED``; M may be 1 for an answer that all share.
            embeds_BMSD: embeddings of all but the last, where they were looked up already.
            indices: where the answers' tokens stand, where it is known on the CPU.
            allowed_tokens: among what each token's probability is taken; ``None``: the vocabulary.
        """
        hidden_nD, labels_n, counted_BML = self.answer_hidden(
            state, rollout, answers_BML, embeds_BMSD, indices
        )
        at_n = None if indices is None else indices.counted_n
        answers_BML = answers_BML.expand_as(counted_BML)
        return self._label_log_probs(hidden_nD, labels_n, answers_BML, counted_BML, allowed_tokens, at_n)

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

    def plain_log_probs(
        self,
        prompts: list[Tensor],
        answers_BL: Tensor,
        allowed_tokens: AllowedTokensOf | None = None,
    ) -> Tensor:
        """N = 0 in one plain causal pass of the backbone over ``[x, y]``, fp32 (B, L); 0 at ``IGNORED``.

        Args:
            prompts: the prompts' ids, without padding.
            answers_BL: answer ids, right-padded with ``IGNORED``; at least one token each.
            allowed_tokens: as in :meth:`answer_log_probs`.
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
        return self._label_log_probs(
            hidden_nD, answers_BL[counted_BL], answers_BL, counted_BL, allowed_tokens
        )

    def _label_log_probs(
        self,
        hidden_nD: Tensor,
        labels_n: Tensor,
        answers: Tensor,
        counted: Tensor,
        allowed_tokens: AllowedTokensOf | None,
        at_n: Tensor | None = None,
    ) -> Tensor:
        """log π of the n counted tokens of ``answers`` (…, L) in their places (``at_n``, where they are
        known), 0 elsewhere."""
        allowed = None if allowed_tokens is None else allowed_tokens(answers, counted)
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
    """Input ids (B, M, L − 1) of the answer pass: the labels without their last column, 0 at padding."""
    return answers_BML[..., :-1].clamp(min=0)
