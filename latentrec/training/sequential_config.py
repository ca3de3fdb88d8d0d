"""The configuration of ``train-sequential``: which encoder, its size, and how it is trained and tuned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from latentrec.core import UserError, option
from latentrec.models.sequential import BLOCKS, ENCODERS, INJECTIONS, STEP_SAMPLERS

SMALLEST_BATCH, LARGEST_BATCH = 64, 1024
STEPS_PER_EPOCH = 64


@dataclass(frozen=True, kw_only=True)
class SequentialConfig:
    """Settings of one sequential model; fields that an encoder does not have are ignored by it."""

    encoder: str = option("sasrec", help="model to train", choices=("popularity", *sorted(ENCODERS)))
    popularity_days: float | None = option(
        None, help="popularity: count only the last so many days of training (default: all of it)"
    )
    dim: int = option(64, help="width of item vectors and states")
    inner_dim: int | None = option(
        None, help="width of the feed-forward layers, or of the GRU (default: the encoder's own)"
    )
    layers: int | None = option(None, help="layers of SASRec and GRU4Rec (default: the encoder's own)")
    heads: int = option(2, help="attention heads")
    hidden_dropout: float | None = option(None, help="dropout of hidden states (default: the encoder's own)")
    attention_dropout: float | None = option(None, help="dropout of attention (default: the encoder's own)")
    max_length: int | None = option(None, help="longest history read (default: the dataset's longest)")
    scoring: str = option("dot", help="score of an item after a state", choices=("dot", "cosine"))
    packing: str = option(
        "rows",
        help="rows: one pass over a user's sequence trains all its targets; samples: one prefix a target",
        choices=("rows", "samples"),
    )
    batch_size: int | None = option(
        None, help=f"targets a step (default: {STEPS_PER_EPOCH} steps an epoch, within 64 and 1024)"
    )
    learning_rate: float = option(1e-3, help="of Adam")
    weight_decay: float = option(0.0, help="of Adam")
    gradient_clip: float = option(0.0, help="largest norm of the gradient (0: no limit)")
    max_epochs: int = option(200, help="upper bound of epochs")
    patience: int = option(10, help="epochs without a better validation NDCG@10 before it stops")
    tune: int = option(
        0, help="variants of dropout and learning rate tried on validation, in the documented order (0: none)"
    )
    block: str = option("transformer", help="lares: layer of both blocks", choices=tuple(BLOCKS))
    pre_layers: int = option(2, help="lares: layers before the recurrence")
    core_layers: int = option(2, help="lares: layers of the recurrent core")
    mean_steps: int = option(4, help="lares: mean number of steps of thought, and their number when scoring")
    step_sampler: str = option("poisson_lognormal", help="lares: steps in training", choices=STEP_SAMPLERS)
    injection: str = option("add", help="lares: how the sequence enters each step", choices=INJECTIONS)
    trajectory_weight: float = option(0.1, help="lares: weight of trajectory-level alignment (alpha)")
    step_weight: float = option(0.5, help="lares: weight of step-level alignment (gamma)")
    temperature: float = option(0.2, help="lares: temperature of both alignments (tau; published: 1)")
    similarity: str = option(
        "cosine",
        help="lares: of two states in both alignments; dot (published) or cosine",
        choices=("dot", "cosine"),
    )
    negatives: str = option(
        "others",
        help="lares: negatives of both alignments; all (published) or others: of another target and row",
        choices=("others", "all"),
    )
    anchors: str = option(
        "row",
        help="lares: anchors of both alignments; one random position of each row, or all (published)",
        choices=("row", "all"),
    )
    views: str = option(
        "shared",
        help="lares: forward that the alignments start from; separate (published) or the loss's (shared)",
        choices=("separate", "shared"),
    )
    cpu_threads: int = option(
        1, help="threads of torch on a CPU; matrices this small gain little from more (0: torch's own choice)"
    )
    seed: int = option(42, help="of initial weights, batches and dropout")

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            UserError: a field is out of range.
        """
        for name in _AT_LEAST_ONE:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("hidden_dropout", "attention_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"{name} is {value}, expected at least 0 and below 1")
        for name in ("learning_rate", "temperature"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}, expected above 0")
        for name in _AT_LEAST_ZERO:
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 0")
        if self.popularity_days is not None and self.popularity_days <= 0:
            raise UserError(f"popularity_days is {self.popularity_days}, expected above 0")
        if self.dim % self.heads:
            raise UserError(f"dim is {self.dim}, expected a multiple of heads ({self.heads})")

    def architecture(self, n_items: int, longest_history: int) -> dict[str, Any]:
        """Keyword arguments of the encoder's class."""
        names = ARCHITECTURE_FIELDS[self.encoder]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**given, "n_items": n_items, "max_length": self.max_length or max(1, longest_history)}

    def targets_per_batch(self, n_targets: int) -> int:
        """``batch_size``, or what gives about 64 steps an epoch, as a power of two from 64 to 1024."""
        if self.batch_size is not None:
            return self.batch_size
        size = SMALLEST_BATCH
        while size < LARGEST_BATCH and size * STEPS_PER_EPOCH < n_targets:
            size *= 2
        return size

    def variants(self) -> list[SequentialConfig]:
        """The configurations that ``tune`` allows, this one first."""
        fixed = replace(self, tune=0)
        return [fixed, *(replace(fixed, **change) for change in TUNING[: max(0, self.tune - 1)])]


_AT_LEAST_ONE = (
    "dim",
    "inner_dim",
    "layers",
    "heads",
    "max_length",
    "batch_size",
    "max_epochs",
    "patience",
    "pre_layers",
    "core_layers",
    "mean_steps",
)
_AT_LEAST_ZERO = ("weight_decay", "gradient_clip", "tune", "cpu_threads", "trajectory_weight", "step_weight")

_COMMON = ("dim", "scoring", "hidden_dropout")
_TRANSFORMER = (*_COMMON, "inner_dim", "heads", "attention_dropout")
ARCHITECTURE_FIELDS: dict[str, tuple[str, ...]] = {
    "sasrec": (*_TRANSFORMER, "layers"),
    "gru4rec": (*_COMMON, "inner_dim", "layers"),
    "caser": _COMMON,
    "lares": (*_TRANSFORMER, "block", "pre_layers", "core_layers", "mean_steps", "injection"),
}

TUNING: tuple[dict[str, Any], ...] = (
    {"hidden_dropout": 0.2, "attention_dropout": 0.2},
    {"hidden_dropout": 0.5, "attention_dropout": 0.2},
    {"learning_rate": 3e-3},
    {"hidden_dropout": 0.2, "attention_dropout": 0.2, "learning_rate": 3e-3},
    {"hidden_dropout": 0.5, "attention_dropout": 0.5, "learning_rate": 5e-4},
    {"hidden_dropout": 0.3, "attention_dropout": 0.3, "weight_decay": 1e-6},
    {"hidden_dropout": 0.1, "attention_dropout": 0.1, "learning_rate": 5e-4},
)
"""Changes tried by ``tune`` after the configuration as given, in this order."""
