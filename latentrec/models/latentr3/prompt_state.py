"""What a prompt leaves behind once it is read, and a decoding that stands on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latentrec.models.latentr3.kv_cache import KeyValues


@dataclass(frozen=True)
class Branches:
    """M continuations of each row: which part of the row each one reads, and where its prompt ends.

    One prompt a row is the special case M = 1. A row that holds all prefixes of a user has one branch a
    prefix.

    Attributes:
        visible_BMT: bool, positions of the row that belong to the branch's prompt (its last one included).
        last_BM: int64, index in the row of the branch's last prompt position: LatentRATT's query.
        lengths_BM: int64, number of prompt tokens of the branch; its next rotary position.
        readable_BMT: bool, positions whose keys and values the backbone's passes over latents and answer
            attend to; ``None``: the branch's whole prompt. LatentRATT reads the whole prompt either way.
    """

    visible_BMT: Tensor
    last_BM: Tensor
    lengths_BM: Tensor
    readable_BMT: Tensor | None = None

    @property
    def keys_BMT(self) -> Tensor:
        """bool, positions of the row that latents and answer of each branch attend to."""
        return self.visible_BMT if self.readable_BMT is None else self.readable_BMT

    @classmethod
    def of_prompts(cls, mask_BT: Tensor) -> Branches:
        """One branch a row: all its real tokens, whichever side the padding is on."""
        index_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
        last_B = torch.where(mask_BT, index_T, -1).amax(dim=1)
        return cls(mask_BT[:, None], last_B[:, None], mask_BT.sum(dim=1, keepdim=True))

    def repeated(self, times: int) -> Branches:
        """``times`` copies of a single branch, as views: the K noised copies of one prompt."""
        assert self.last_BM.shape[1] == 1, "only a single branch can be repeated"
        return Branches(
            self.visible_BMT.expand(-1, times, -1),
            self.last_BM.expand(-1, times),
            self.lengths_BM.expand(-1, times),
            None if self.readable_BMT is None else self.readable_BMT.expand(-1, times, -1),
        )

    def rows(self, indices: Tensor) -> Branches:
        """The branches of the rows at ``indices``, in that order."""
        readable_BMT = None if self.readable_BMT is None else self.readable_BMT.index_select(0, indices)
        visible_BMT, last_BM, lengths_BM = (
            tensor.index_select(0, indices) for tensor in (self.visible_BMT, self.last_BM, self.lengths_BM)
        )
        return Branches(visible_BMT, last_BM, lengths_BM, readable_BMT)

    def with_dropped_keys(self, rate: float) -> Branches:
        """Each readable position hidden from latents and answer with probability ``rate``, per branch."""
        kept_BMT = torch.rand(self.keys_BMT.shape, device=self.keys_BMT.device) >= rate
        return replace(self, readable_BMT=self.keys_BMT & kept_BMT)

    def gather(self, hidden_BTD: Tensor) -> Tensor:
        """Hidden state at the end of each branch's prompt, (B, M, d)."""
        index = self.last_BM[..., None].expand(-1, -1, hidden_BTD.shape[-1])
        return hidden_BTD.gather(1, index)


@dataclass(frozen=True)
class AnswerIndices:
    """Where the tokens of answers (B, M, L) stand, found on the CPU so that no step waits for the GPU.

    Attributes:
        counted_n: int64, indices into (B × M × L) of the tokens, ascending.
        later_n: int64, indices into (B × M × (L − 1)) of those that are not an answer's first, without their
            first column.
    """

    counted_n: Tensor
    later_n: Tensor


@dataclass(frozen=True)
class PromptState:
    """Prompts, read once.

    Attributes:
        hidden_BTD: last-layer hidden states after the final norm.
        key_values: keys and values of every layer at every position.
        positions_BT: rotary positions.
        branches: one branch a prompt.
    """

    hidden_BTD: Tensor
    key_values: KeyValues
    positions_BT: Tensor
    branches: Branches

    def rows(self, indices: Tensor) -> PromptState:
        """The prompts at ``indices``, in that order."""
        take = lambda tensor: tensor.index_select(0, indices)  # noqa: E731
        return PromptState(
            take(self.hidden_BTD),
            self.key_values.rows(indices),
            take(self.positions_BT),
            self.branches.rows(indices),
        )

    def detached(self) -> PromptState:
        """The same values without a graph."""
        return PromptState(
            self.hidden_BTD.detach(), self.key_values.detached(), self.positions_BT, self.branches
        )


@dataclass(frozen=True)
class LatentRollout:
    """The latent tokens of M branches.

    Attributes:
        means_BMND: what LatentRATT gave, r_1 … r_N.
        actions_BMND: what the backbone read: the means plus noise, or stored actions.
        key_values: of the prompt, followed by those of the latents but the last, N − 1 blocks of M slots.
        last_hidden_BMD: hidden state at the end of the prompt (the position before the first latent).
    """

    means_BMND: Tensor
    actions_BMND: Tensor
    key_values: KeyValues
    last_hidden_BMD: Tensor


@dataclass(frozen=True)
class DecodingState:
    """Beams of B prompts that share the prompt's keys and values: nothing is copied when beams are reordered.

    Each step appends one slot for each of W beams; a beam is the set of slots that it may attend to.

    Attributes:
        logits_BWV: fp32 next-token logits of each beam (W = 1 after the prompt).
        key_values: slots of prompt, latents and every beam of every step so far.
        visible_BWC: bool, the slots of each beam.
        positions_B: rotary position of the next token.
        latents_BND: the latent tokens of each prompt; N may be 0.
    """

    logits_BWV: Tensor
    key_values: KeyValues
    visible_BWC: Tensor
    positions_B: Tensor
    latents_BND: Tensor

    def rows(self, indices: Tensor) -> DecodingState:
        """The prompts at ``indices`` (to drop those whose beams have ended)."""
        return DecodingState(
            self.logits_BWV.index_select(0, indices),
            self.key_values.rows(indices),
            self.visible_BWC.index_select(0, indices),
            self.positions_B.index_select(0, indices),
            self.latents_BND.index_select(0, indices),
        )


def own_slots(visible_BMC: Tensor, blocks: int) -> Tensor:
    """Extend a visibility mask by ``blocks`` blocks of M new slots; each branch sees its own slot in each."""
    rows, width = visible_BMC.shape[:2]
    own_MM = torch.eye(width, dtype=torch.bool, device=visible_BMC.device).repeat(1, blocks)
    return torch.cat([visible_BMC, own_MM.expand(rows, -1, -1)], dim=-1)
