"""The configuration of ``train-sequential``: which encoder, its size, and how it is trained and tuned."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from latentrec.core import Config
from latentrec.core.config import (
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveFloat,
    PositiveInt,
    Probability,
    Seed,
)
from latentrec.models.sequential.encoders import BLOCK_NAMES, ENCODERS, INJECTIONS, STEP_SAMPLERS
from latentrec.training.common.world import check_enough

SMALLEST_BATCH, LARGEST_BATCH = 64, 1024
STEPS_PER_EPOCH = 64
FULL_SOFTMAX_BELOW = 1_000_000
"""From so many items on the softmax in training is over drawn items, unless ``num_negatives`` is set."""
NUM_NEGATIVES = 8192

PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "packing": "samples",
        "batch_size": 1024,
        "max_length": 20,
        "hidden_dropout": 0.5,
        "attention_dropout": 0.5,
        "temperature": 1.0,
        "similarity": "dot",
        "negatives": "all",
        "anchors": "all",
        "views": "separate",
    },
    "default": {
        "packing": "rows",
        "temperature": 0.2,
        "similarity": "cosine",
        "negatives": "others",
        "anchors": "row",
        "views": "shared",
    },
}
"""What unset options of LARES become. ``paper`` is the publication with what its code does besides: the
step-level view may be the last step, ``linear`` injection has one scalar weight, and the ``uniform`` sampler
goes to 2μ. (``rpt --profile paper`` filters its samples in evaluation mode at μ steps.)"""
_AS_CODED = {"injection": {"linear": "linear_scalar"}, "step_sampler": {"uniform": "uniform_to_double"}}


class SequentialConfig(Config):
    """Settings of one sequential model; fields that an encoder does not have are ignored by it."""

    step_name: ClassVar[str] = "train_sequential"

    encoder: Annotated[str, OneOf("popularity", *sorted(ENCODERS))] = Field(
        "sasrec", description="which model to train"
    )
    profile: Literal["default", "paper"] = Field(
        "default", description="lares: what unset options become; paper: as published"
    )
    popularity_days: PositiveFloat | None = Field(
        None, description="popularity: count only the last so many days of training (default: all of it)"
    )
    hidden_size: PositiveInt = Field(64, description="width of item vectors and states")
    inner_dim: PositiveInt | None = Field(
        None, description="width of the feed-forward layers, or of the GRU (default: the encoder's own)"
    )
    layers: PositiveInt | None = Field(
        None, description="layers of SASRec and GRU4Rec (default: the encoder's own)"
    )
    heads: PositiveInt = Field(2, description="attention heads")
    hidden_dropout: Probability | None = Field(
        None, description="dropout of hidden states (default: the encoder's own)"
    )
    attention_dropout: Probability | None = Field(
        None, description="dropout of attention (default: the encoder's own)"
    )
    max_length: PositiveInt | None = Field(
        None, description="longest history read (default: the dataset's longest)"
    )
    scoring: Literal["dot", "cosine"] = Field("dot", description="score of an item after a state")
    packing: Literal["rows", "samples"] | None = Field(
        None,
        description="rows: one pass over a user's sequence trains all its targets; samples: one prefix a "
        "target (default rows, paper samples)",
    )
    batch_size: PositiveInt | None = Field(
        None, description=f"targets a step (default: {STEPS_PER_EPOCH} steps an epoch, within 64 and 1024)"
    )
    num_negatives: NonNegativeInt | None = Field(
        None,
        description="sampled softmax: items drawn each step, beside the target; 0: all items (default: 0 "
        f"below {FULL_SOFTMAX_BELOW:,} items, {NUM_NEGATIVES} from there)",
    )
    negative_sampling: Literal["popularity", "uniform"] = Field(
        "popularity", description="sampled softmax: how items are drawn, corrected for by log Q"
    )
    learning_rate: PositiveFloat = Field(0.001, description="peak learning rate of Adam")
    weight_decay: NonNegativeFloat = Field(0.0, description="weight decay of Adam")
    num_train_epochs: PositiveInt = Field(200, description="upper bound of epochs")
    patience: PositiveInt = Field(
        10, description="epochs without a better validation NDCG@10 before it stops"
    )
    tune: NonNegativeInt = Field(
        0,
        description="variants of dropout and learning rate tried on validation, in the documented order "
        "(0: none)",
    )
    block: Annotated[str, OneOf(*BLOCK_NAMES)] = Field(
        "transformer", description="lares: layer of both blocks"
    )
    pre_layers: PositiveInt = Field(2, description="lares: layers before the recurrence")
    core_layers: PositiveInt = Field(2, description="lares: layers of the recurrent core")
    mean_steps: PositiveInt = Field(
        4, description="lares: mean number of steps of thought, and their number when scoring"
    )
    step_sampler: Annotated[str, OneOf(*STEP_SAMPLERS)] = Field(
        "poisson_lognormal", description="lares: steps in training"
    )
    injection: Annotated[str, OneOf(*INJECTIONS)] = Field(
        "add", description="lares: how the sequence enters each step"
    )
    trajectory_weight: NonNegativeFloat = Field(
        0.1, description="lares: weight of trajectory-level alignment (alpha)"
    )
    step_weight: NonNegativeFloat = Field(0.5, description="lares: weight of step-level alignment (gamma)")
    temperature: PositiveFloat | None = Field(
        None, description="lares: temperature of both alignments, tau (default 0.2, paper 1)"
    )
    similarity: Literal["dot", "cosine"] | None = Field(
        None, description="lares: of two states in both alignments (default cosine, paper dot)"
    )
    negatives: Literal["others", "all"] | None = Field(
        None,
        description="lares: negatives of both alignments; all, or others: of another target and row "
        "(default others, paper all)",
    )
    anchors: Literal["row", "all"] | None = Field(
        None,
        description="lares: anchors of both alignments; one random position of each row, or all (default "
        "row, paper all)",
    )
    views: Literal["separate", "shared"] | None = Field(
        None,
        description="lares: forward that the alignments start from; one of their own, or the loss's "
        "(default shared, paper separate)",
    )
    seed: Seed = Field(42, description="seed of initial weights, batches and dropout")

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Fill what the profile decides; attention heads share the width."""
        if self.profile == "paper":
            if self.encoder != "lares":
                raise ValueError(f"profile is 'paper', which is of encoder lares, not of {self.encoder}")
            for name, coded in _AS_CODED.items():
                self.__dict__[name] = coded.get(getattr(self, name), getattr(self, name))
        self.fill(PROFILES[self.profile])
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size is {self.hidden_size}, expected a multiple of heads ({self.heads})"
            )
        return self

    @property
    def step_view(self) -> Literal["earlier", "any"]:
        """Step of LARES' step-level view: before the last; as the authors coded, any, the last too."""
        return "any" if self.profile == "paper" else "earlier"

    def architecture(self, n_items: int, longest_history: int) -> dict[str, Any]:
        """Keyword arguments of the encoder's class."""
        names = ARCHITECTURE_FIELDS[self.encoder]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**given, "n_items": n_items, "max_length": self.max_length or max(1, longest_history)}

    def negatives_drawn(self, n_items: int) -> int:
        """Items that a step's softmax is over beside the target; 0: all of them."""
        if self.num_negatives is None:
            return 0 if n_items < FULL_SOFTMAX_BELOW else NUM_NEGATIVES
        return 0 if self.num_negatives >= n_items else self.num_negatives

    def check_world(self, processes: int) -> None:
        """Refuse a batch that leaves a process without a target.

        Raises:
            UserError: ``batch_size`` is below the number of processes.
        """
        if self.batch_size is not None:
            check_enough(f"{self.step_name}.batch_size is {self.batch_size}", self.batch_size, processes)

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
        fixed = self.replace(tune=0)
        return [fixed, *(fixed.replace(**change) for change in TUNING[: max(0, self.tune - 1)])]


_COMMON = ("hidden_size", "scoring", "hidden_dropout")
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
