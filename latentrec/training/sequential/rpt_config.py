"""The configuration of ``rpt``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

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
from latentrec.training.common.world import check_enough

ESTIMATORS = ("target_likelihood", "gaussian", "smoothed")
REWARDS = ("recall", "ndcg")
PROFILES: dict[str, dict[str, str]] = {
    "paper": {"estimator": "target_likelihood"},
    "default": {"estimator": "smoothed"},
}
"""What unset options become; all others are as published in both profiles."""


class RPTConfig(Config):
    """Settings of reinforcement post-training (arXiv 2505.16865, §3.4)."""

    step_name: ClassVar[str] = "rpt"

    objective: Literal["rpt", "spt"] = Field(
        "rpt",
        description="rpt; or spt: the control that goes on with pre-training from the same model for as long",
    )
    profile: Literal["default", "paper"] = Field(
        "default", description="what unset options become; paper: as published"
    )
    estimator: Annotated[str, OneOf(*ESTIMATORS)] | None = Field(
        None, description="how the reward's gradient is had (default smoothed, paper target_likelihood)"
    )
    reward: Annotated[str, OneOf(*REWARDS)] = Field(
        "recall", description="reward of the final step's ranking"
    )
    k: PositiveInt = Field(10, description="length of the list that is rewarded")
    num_generations: PositiveInt = Field(4, description="stochastic forwards of each sample (G)")
    beta: NonNegativeFloat = Field(
        1.0, description="weight of the drift from the frozen SPT model (0: no reference)"
    )
    filter_passes: NonNegativeInt = Field(
        3, description="hard-sample filter: passes (0: train on every sample)"
    )
    filter_top: PositiveInt = Field(
        100, description="hard-sample filter: keep targets that reach so high in any pass"
    )
    hidden_dropout: Probability = Field(0.1, description="dropout of hidden states")
    attention_dropout: Probability = Field(0.1, description="dropout of attention")
    learning_rate: PositiveFloat = Field(0.0005, description="peak learning rate of Adam")
    weight_decay: NonNegativeFloat = Field(0.0, description="weight decay of Adam")
    batch_size: PositiveInt = Field(400, description="targets a step")
    num_train_epochs: PositiveInt = Field(30, description="upper bound of epochs")
    patience: PositiveInt = Field(
        10, description="epochs without a better validation NDCG@10 before it stops"
    )
    seed: Seed = Field(42, description="seed of batches, initial states and dropout")

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Fill what the profile decides; the advantage of a group of one is always 0."""
        self.fill(PROFILES[self.profile])
        if self.estimator == "target_likelihood" and self.num_generations < 2:
            raise ValueError(
                f"num_generations is {self.num_generations}, expected at least 2 for target_likelihood"
            )
        return self

    def check_world(self, processes: int) -> None:
        """Refuse a batch that leaves a process without a target.

        Raises:
            UserError: ``batch_size`` is below the number of processes.
        """
        check_enough(f"{self.step_name}.batch_size is {self.batch_size}", self.batch_size, processes)

    @property
    def filters_in_evaluation_mode(self) -> bool:
        """Whether the hard-sample filter runs without dropout at μ steps, as the authors' code does."""
        return self.profile == "paper"
