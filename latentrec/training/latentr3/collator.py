"""Next-item samples as token batches: plain rows, or rows that hold all prefixes of one user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from latentrec.data import Samples
from latentrec.models.latentr3 import (
    IGNORED,
    PADDING,
    TRUNK,
    AllowedTokensOf,
    AnswerIndices,
    LatentR3Model,
    PromptState,
    read_before,
)
from latentrec.prompts import NextItemPrompt


@dataclass(frozen=True)
class TokenRow:
    """Samples that one row holds, by index; the longest history last. One sample: a plain row."""

    samples: tuple[int, ...]


class NextItemTokens:
    """Tokens of every sample of a split, made on demand from the titles' lines.

    Attributes:
        prompt_lengths: int64 (S,), tokens of each prompt.
        answer_lengths: int64 (S,), tokens of each answer.
        allowed_tokens: among what the probability of an answer's tokens is taken; ``None``: the vocabulary.
    """

    def __init__(
        self,
        samples: Samples,
        titles: Sequence[str],
        prompt: NextItemPrompt,
        allowed_tokens: AllowedTokensOf | None = None,
    ):
        """Tokenize the catalogue once.

        Raises:
            UserError: a target is longer than the prompt's ``max_title_tokens``.
        """
        self.samples = samples
        self.allowed_tokens = allowed_tokens
        self.titles = titles
        self.prompt = prompt
        prompt.check_titles([titles[item] for item in np.unique(samples.targets)])
        limit = prompt.max_title_tokens
        unique = np.unique(np.concatenate([samples.targets, samples.history_items]))
        self._lines = {int(i): prompt.encode_target(titles[i]) for i in np.unique(samples.targets)}
        line_lengths = np.zeros(len(titles), np.int64)
        for item in unique:
            line_lengths[item] = min(len(prompt.history_lines([titles[item]])[0]), limit)
        totals = np.concatenate([[0], np.cumsum(line_lengths[samples.history_items])])
        ends = samples.history_offsets[1:]
        starts = np.maximum(samples.history_offsets[:-1], ends - prompt.max_history)
        frame = len(prompt.prefix_ids) + len(prompt.response_ids)
        self.prompt_lengths = np.minimum(totals[ends] - totals[starts] + frame, prompt.max_prompt_tokens)
        self._whole = totals[ends] - totals[starts] + frame <= prompt.max_prompt_tokens
        self._whole &= np.diff(samples.history_offsets) <= prompt.max_history
        self.answer_lengths = np.array([len(self._lines[int(i)]) for i in samples.targets], np.int64)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def history_titles(self, index: int) -> list[str]:
        """Titles of a sample's history, oldest first."""
        return [self.titles[item] for item in self.samples.history(index)]

    def prompt_ids(self, index: int) -> list[int]:
        """Prompt of one sample."""
        return self.prompt.encode_history(self.history_titles(index))

    def answer_ids(self, index: int) -> list[int]:
        """Answer of one sample: its target's title line and end of sequence."""
        return self._lines[int(self.samples.targets[index])]

    def single_rows(self) -> list[TokenRow]:
        """Every sample in a row of its own."""
        return [TokenRow((index,)) for index in range(len(self))]

    def packed_rows(self) -> list[TokenRow]:
        """Samples of one user together where the history of one, and its target, begin the next one's.

        Exact: a sample whose prompt was cut (by ``max_history`` or ``max_prompt_tokens``) shares no beginning
        with the one before it and stays alone.
        """
        samples, rows = self.samples, []
        current: list[int] = []
        for index in np.argsort(samples.user_ids, kind="stable").tolist():
            if current and self._continues(current[-1], index):
                current.append(index)
            else:
                if current:
                    rows.append(TokenRow(tuple(current)))
                current = [index]
        if current:
            rows.append(TokenRow(tuple(current)))
        assert sum(len(row.samples) for row in rows) == len(samples)
        return rows

    def _continues(self, before: int, index: int) -> bool:
        samples = self.samples
        if samples.user_ids[before] != samples.user_ids[index] or not self._whole[index]:
            return False
        old, new = samples.history(before), samples.history(index)
        return (
            len(new) == len(old) + 1
            and new[-1] == samples.targets[before]
            and bool(np.array_equal(new[:-1], old))
        )

    def row_length(self, row: TokenRow) -> int:
        """Positions of a row's prompt pass."""
        extra = len(self.prompt.response_ids) * (len(row.samples) - 1)
        return int(self.prompt_lengths[row.samples[-1]]) + extra


def plain_batch(tokens: NextItemTokens, indices: Sequence[int]) -> dict[str, Tensor]:
    """One sample a row, padded on the right.

    Returns:
        ``input_ids`` and ``attention_mask`` (B, T), ``labels`` (B, 1, L) with ``IGNORED`` as padding.
    """
    prompts = [tokens.prompt_ids(index) for index in indices]
    answers = [tokens.answer_ids(index) for index in indices]
    lengths = torch.tensor([len(ids) for ids in prompts])
    width = int(lengths.max())
    ids = _padded(prompts, width, tokens.prompt.pad_id)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(width) < lengths[:, None]).long(),
        "labels": _padded(answers, max(map(len, answers)), IGNORED)[:, None],
    }


def packed_batch(tokens: NextItemTokens, rows: Sequence[TokenRow]) -> dict[str, Tensor]:
    """All prefixes of a user in one row: the trunk (instruction and the longest history), then one answer
    lead-in for each prefix, under a tree mask.

    Returns:
        ``input_ids``, ``positions`` (B, T); ``segments`` (B, T): −1 trunk, −2 padding, else the branch that a
        lead-in belongs to; ``trunk_lengths`` (B, M): how much of the trunk each branch reads; ``last``,
        ``lengths`` (B, M) as in :class:`~latentrec.models.latentr3.Branches`; ``labels`` (B, M, L).
    """
    response = tokens.prompt.response_ids
    prefix = len(tokens.prompt.prefix_ids)
    ids, positions, segments, trunks, lasts, answers = [], [], [], [], [], []
    for row in rows:
        lines = tokens.prompt.history_lines(tokens.history_titles(row.samples[-1]))
        trunk = [*tokens.prompt.prefix_ids, *(token for line in lines for token in line)]
        ends = prefix + np.concatenate([[0], np.cumsum([len(line) for line in lines])])
        count = len(row.samples)
        reads = [int(ends[len(lines) - (count - 1 - b)]) for b in range(count)]
        ids.append(trunk + response * count)
        positions.append([*range(len(trunk)), *(r + i for r in reads for i in range(len(response)))])
        segments.append([TRUNK] * len(trunk) + [b for b in range(count) for _ in response])
        trunks.append(reads)
        lasts.append([len(trunk) + (b + 1) * len(response) - 1 for b in range(count)])
        answers.append([tokens.answer_ids(index) for index in row.samples])
    width = max(map(len, ids))
    branches = max(map(len, trunks))
    length = max(len(answer) for row_answers in answers for answer in row_answers)
    labels = torch.full((len(rows), branches, length), IGNORED)
    for r, row_answers in enumerate(answers):
        labels[r, : len(row_answers)] = _padded(row_answers, length, IGNORED)
    trunk_lengths = _padded(trunks, branches, 1)
    return {
        "input_ids": _padded(ids, width, tokens.prompt.pad_id),
        "positions": _padded(positions, width, 0),
        "segments": _padded(segments, width, PADDING),
        "trunk_lengths": trunk_lengths,
        "last": _padded(lasts, branches, 0),
        "lengths": trunk_lengths + len(response),
        "labels": labels,
    }


def encode_batch(
    model: LatentR3Model, batch: dict[str, Tensor], embeds_BTD: Tensor | None = None
) -> PromptState:
    """Read the prompts of a plain or a packed batch; ``embeds_BTD`` where they were looked up already."""
    if "segments" not in batch:
        return model.encode_prompt(
            batch["input_ids"],
            batch["attention_mask"],
            embeds_BTD,
            right_padded=True,
            real_n=batch.get("prompt_index"),
        )
    return model.encode_packed(
        batch["input_ids"],
        batch["positions"],
        batch["segments"],
        batch["trunk_lengths"],
        batch["last"],
        batch["lengths"],
        embeds_BTD,
        real_n=batch.get("prompt_index"),
    )


def answer_log_probs(model: LatentR3Model, batch: dict[str, Tensor]) -> Tensor:
    """log π of every answer token of a batch, fp32 (B, M, L), 0 at padding; the prompt is read once."""
    return answer_pass(model, batch)[0]


def answer_pass(
    model: LatentR3Model,
    batch: dict[str, Tensor],
    *,
    allowed_tokens: AllowedTokensOf | None = None,
    prompt_key_dropout: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """:func:`answer_log_probs`, and the latents (B, M, N, d) that it read; ``None`` where N = 0.

    Args:
        model: that answers.
        batch: of :func:`plain_batch` or :func:`packed_batch`.
        allowed_tokens: as in :meth:`~latentrec.models.latentr3.LatentR3Model.answer_log_probs`.
        prompt_key_dropout: probability that a position of the prompt is hidden from latents and answer.
    """
    labels_BML = batch["labels"]
    if model.n_latents == 0 and "segments" not in batch:
        counts_B = batch["attention_mask"].sum(dim=1).tolist()
        prompts = [ids[:count] for ids, count in zip(batch["input_ids"], counts_B, strict=True)]
        return model.plain_log_probs(prompts, labels_BML[:, 0], allowed_tokens)[:, None], None
    prompt_embeds, answer_embeds = model.backbone.embed_together(batch["input_ids"], read_before(labels_BML))
    state = encode_batch(model, batch, prompt_embeds)
    if prompt_key_dropout:
        state = replace(state, branches=state.branches.with_dropped_keys(prompt_key_dropout))
    rollout = model.roll_out(state)
    indices = None
    if "answer_index" in batch:
        indices = AnswerIndices(batch["answer_index"], batch["later_answer_index"])
    log_probs = model.answer_log_probs(state, rollout, labels_BML, answer_embeds, indices, allowed_tokens)
    return log_probs, rollout.means_BMND if model.n_latents else None


def has_title(labels_BML: Tensor) -> Tensor:
    """bool (B, M): branches that are samples, and not there to fill the batch."""
    return (labels_BML >= 0).any(dim=-1)


def with_indices(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A finished batch, still on the CPU, with the places of its tokens: no step waits for the GPU."""
    real_BT = batch["segments"] != PADDING if "segments" in batch else batch["attention_mask"] != 0
    counted_BML = batch["labels"] != IGNORED
    return batch | {
        "prompt_index": real_BT.flatten().nonzero()[:, 0],
        "answer_index": counted_BML.flatten().nonzero()[:, 0],
        "later_answer_index": counted_BML[..., 1:].flatten().nonzero()[:, 0],
    }


def _padded(rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
    out = np.full((len(rows), width), value, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)
