"""A micro-batch that goes through the model in groups of rows: the same gradient, for less memory.

What a training step holds beside weights and optimizer are activations, and they grow with the tokens of one
forward pass. The loss of an optimizer batch is a sum over its rows, so rows may pass in any number of groups.
On a GPU one large pass is faster; a CPU computes as fast in small ones, and its memory then no longer follows
the longest batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentrec.models.latentr3 import IGNORED, PADDING
from latentrec.training.latentr3.collator import with_indices

ACTIVATION_BYTES = 3 * 2**29
"""What the activations of one pass may take on a CPU, unless the configuration says otherwise (1.5 GiB)."""
_BYTES_A_FEATURE = {False: 4.0, True: 2.7}
"""Of bf16 autocast (True) and fp32, fitted to SmolLM2-135M: 1.2 and 1.8 MB a token
(``python -m benchmarks.pretrained_training``)."""


def tokens_that_fit(backbone: Any, *, bf16: bool, activation_bytes: int = ACTIVATION_BYTES) -> int:
    """Tokens whose activations take ``activation_bytes`` in a forward pass that is differentiated.

    Args:
        backbone: the language model's configuration (``num_hidden_layers``, ``hidden_size``,
            ``intermediate_size``).
        bf16: computed under autocast to bf16.
        activation_bytes: the budget.
    """
    hidden = backbone.hidden_size
    feed_forward = getattr(backbone, "intermediate_size", None) or 4 * hidden
    # Of each layer autograd keeps about 12 vectors of the hidden size and 5 of the feed-forward's.
    features = backbone.num_hidden_layers * (12 * hidden + 5 * feed_forward)
    return max(1, int(activation_bytes / (_BYTES_A_FEATURE[bf16] * features)))


def forward_budget(config: Any, backbone: Any) -> int:
    """Tokens of one forward pass: as configured, else what fits on a CPU, else no limit (0).

    Args:
        config: of the stage (``max_tokens_per_forward``, ``splits_exactly``, ``bf16``).
        backbone: the language model's configuration.
    """
    if config.max_tokens_per_forward is not None:
        return int(config.max_tokens_per_forward)
    if torch.cuda.is_available() or not config.splits_exactly:
        return 0
    return tokens_that_fit(backbone, bf16=bool(config.bf16))


def split_batch(batch: dict[str, Tensor], most_tokens: int) -> list[dict[str, Tensor]]:
    """Groups of neighboring rows with at most ``most_tokens`` tokens each, in order.

    Args:
        batch: of a :class:`~latentrec.training.latentr3.sft_trainer.RowCollator`.
        most_tokens: tokens of prompts and answers, padding not counted; a longer row is a group of its own.
            0: the batch stays whole.

    Returns:
        The batches, each cut to its own longest row, with the indices of
        :func:`~latentrec.training.latentr3.collator.with_indices`; the batch itself where nothing is split.
    """
    if not most_tokens:
        return [batch]
    answers_B = (batch["labels"] != IGNORED).flatten(1).sum(dim=1)
    groups: list[list[int]] = []
    remaining = 0
    for row, tokens in enumerate((_prompt_lengths(batch) + answers_B).tolist()):
        if not groups or tokens > remaining:
            groups.append([])
            remaining = most_tokens
        groups[-1].append(row)
        remaining -= tokens
    if len(groups) == 1:
        return [batch]
    return [_rows(batch, group[0], group[-1] + 1) for group in groups]


def _prompt_lengths(batch: dict[str, Tensor]) -> Tensor:
    real_BT = batch["segments"] != PADDING if "segments" in batch else batch["attention_mask"] != 0
    return real_BT.sum(dim=1)


def _rows(batch: dict[str, Tensor], begin: int, end: int) -> dict[str, Tensor]:
    """Rows ``begin`` to ``end``, without the columns that are padding in all of them (they stand right)."""
    rows = {name: tensor[begin:end] for name, tensor in batch.items() if not name.endswith("_index")}
    width = int(_prompt_lengths(rows).max())
    for name in ("input_ids", "attention_mask", "positions", "segments"):
        if name in rows:
            rows[name] = rows[name][:, :width]
    branches = int(rows["segments"].max()) + 1 if "segments" in rows else 1
    for name in ("trunk_lengths", "last", "lengths", "labels"):
        if name in rows:
            rows[name] = rows[name][:, :branches]
    counted_BML = rows["labels"] != IGNORED
    length = int(counted_BML.sum(dim=-1).max().clamp(min=1))
    rows["labels"] = rows["labels"][..., :length]
    return with_indices({name: tensor.contiguous() for name, tensor in rows.items()})
