"""The configuration of ``train-sequential``: which encoder, its size, and how it is trained and tuned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from latentrec.core import UserError, option
from latentrec.models.sequential import ENCODERS

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
    inner_dim: int = option(256, help="width of the feed-forward layers")
    layers: int = option(2, help="layers of SASRec and GRU4Rec")
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
    seed: int = option(42, help="of initial weights, batches and dropout")

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            UserError: a field is out of range.
        """
        for name in ("dim", "inner_dim", "layers", "heads", "max_epochs", "patience"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("max_length", "batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("hidden_dropout", "attention_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"{name} is {value}, expected at least 0 and below 1")
        if self.learning_rate <= 0:
            raise UserError(f"learning_rate is {self.learning_rate}, expected above 0")
        for name in ("weight_decay", "gradient_clip", "tune"):
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


_COMMON = ("dim", "scoring")
ARCHITECTURE_FIELDS: dict[str, tuple[str, ...]] = {
    "sasrec": (*_COMMON, "inner_dim", "layers", "heads", "hidden_dropout", "attention_dropout"),
}

TUNING: tuple[dict[str, float], ...] = (
    {"hidden_dropout": 0.2, "attention_dropout": 0.2},
    {"hidden_dropout": 0.5, "attention_dropout": 0.2},
    {"learning_rate": 3e-3},
    {"hidden_dropout": 0.2, "attention_dropout": 0.2, "learning_rate": 3e-3},
    {"hidden_dropout": 0.5, "attention_dropout": 0.5, "learning_rate": 5e-4},
    {"hidden_dropout": 0.3, "attention_dropout": 0.3, "weight_decay": 1e-6},
    {"hidden_dropout": 0.1, "attention_dropout": 0.1, "learning_rate": 5e-4},
)
"""Changes tried by ``tune`` after the configuration as given, in this order."""
