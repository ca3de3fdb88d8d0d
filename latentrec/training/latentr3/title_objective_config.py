"""Configuration of ``title-objective``, LatentR³'s stage 2 on the probability of the true title."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from latentrec.core import UserError
from latentrec.core.config import (
    LARGEST,
    OPERATIONAL,
    NonNegativeFloat,
    NonNegativeInt,
    OneOf,
    PositiveFloat,
    PositiveInt,
)
from latentrec.data.time_range import check_time_range
from latentrec.training.common.early_stopping import OBJECTIVE, SELECTIONS, check_selection
from latentrec.training.common.world import check_share
from latentrec.training.latentr3.stage_2_config import Stage2Config

OBJECTIVES = ("arcsin", "power", "grpo", "likelihood")
"""As :mod:`latentrec.training.latentr3.title_weights` defines them."""


class TitleObjectiveConfig(Stage2Config):
    """Ascent on a function of p, the true title's probability among the catalogue's: a supervised loss."""

    step_name: ClassVar[str] = "title_objective"

    objective: Annotated[str, OneOf(*OBJECTIVES)] = Field(
        "arcsin",
        description="arcsin: 2 arcsin sqrt(p), the limit of GRPO's 0/1 reward for ever larger groups (Davis "
        "and Recht 2025); power: p^exponent, generalized cross-entropy (Zhang and Sabuncu 2018); grpo: its "
        "expectation for groups of num_generations; likelihood: log p",
    )
    exponent: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="q of objective power")
    estimator: Literal["exact", "sampled"] = Field(
        "exact",
        description="exact: closed form over all titles, nothing is sampled; sampled: GRPO that draws "
        "num_generations titles a prompt and takes objective grpo by reward, as trl does",
    )
    num_generations: Annotated[int, Field(ge=2, le=LARGEST)] = Field(
        8, description="G of objective grpo: titles of a group"
    )
    loss_type: Literal["grpo", "bnpo", "dr_grpo"] = Field(
        "grpo",
        description="estimator sampled: how trl weighs a title's tokens; grpo: mean over its own; bnpo "
        "(with one micro-batch dapo too): over the micro-batch's; dr_grpo: sum over the longest title's "
        "length",
    )
    scale_rewards: bool = Field(
        True,
        description="estimator sampled: divide by the group's standard deviation (off: Dr. GRPO)",
    )
    likelihood: Literal["vocabulary", "catalogue"] = Field(
        "catalogue",
        description="among what a token's probability is taken: the tokens that continue some title of the "
        "catalogue, or the vocabulary",
    )
    batch_size: PositiveInt = Field(
        32, description="samples of an optimizer step, over all processes and accumulation"
    )
    max_tokens_per_forward: Annotated[NonNegativeInt | None, OPERATIONAL] = Field(
        None,
        description="tokens that pass through the model at once; a larger micro-batch is split by rows, for "
        "the same gradient (unset: on a CPU as many as hold 1.5 GiB of activations; 0: no limit)",
    )
    learning_rate: PositiveFloat = Field(3e-4, description="peak of the schedule")
    warmup_steps: NonNegativeInt = Field(5, description="steps of linear warm-up")
    train_backbone: bool = Field(True, description="train the backbone too, jointly with LatentRATT")
    bf16: bool = Field(False, description="autocast to bf16; weights stay fp32")
    sharding: Annotated[Literal["ddp", "fsdp"], OPERATIONAL] = Field(
        "ddp",
        description="several processes: ddp, each holds all weights; fsdp shares out weights, gradients and "
        "optimizer (FSDP2)",
    )
    eval_steps: PositiveInt = Field(100, description="steps between evaluations")
    metric_for_best_model: Annotated[str, OneOf(*SELECTIONS, OBJECTIVE)] = Field(
        OBJECTIVE,
        description="validation figure that decides which weights are kept; objective: what training "
        "maximizes",
    )
    load_best_model_at_end: bool = Field(
        True, description="end with the weights that were best on validation, else with the last"
    )
    collapse_below: NonNegativeFloat = Field(
        0.5, description="stop when validation HR@10 falls below this share of stage 1's; 0: no guard"
    )
    ranking_samples: NonNegativeInt = Field(
        200, description="validation samples ranked by the real decoder; 0: none"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what cannot be meant."""
        if self.estimator == "sampled" and self.objective != "grpo":
            raise UserError(
                "title_objective.estimator is 'sampled', whose expectation is objective 'grpo', but "
                "objective "
                f"is '{self.objective}'; use --objective grpo, or --estimator exact",
                code="config.conflict",
            )
        if self.estimator == "sampled" and self.likelihood != "catalogue":
            raise UserError(
                f"title_objective.likelihood is '{self.likelihood}', but estimator 'sampled' draws titles of "
                "the catalogue; leave it at 'catalogue'",
                code="config.conflict",
            )
        if self.estimator == "sampled" and self.sharding == "fsdp":
            raise UserError(
                "title_objective.sharding is 'fsdp', but estimator 'sampled' draws titles, each process "
                "another number of tokens; use --estimator exact, or --sharding ddp",
                code="config.conflict",
            )
        if self.max_tokens_per_forward and not self.splits_exactly:
            raise UserError(
                f"title_objective.max_tokens_per_forward is {self.max_tokens_per_forward}, but with sharding "
                "'fsdp' all processes pass together, and estimator 'sampled' draws for what passes together; "
                "raise gradient_accumulation_steps instead",
                code="config.conflict",
            )
        check_time_range("title_objective", self.train_from, self.train_to)
        if self.metric_for_best_model in SELECTIONS:
            check_selection("title_objective", self.metric_for_best_model, self.ranking_samples)
        return self

    @property
    def splits_exactly(self) -> bool:
        """Whether rows of a micro-batch may pass through the model in groups and nothing else changes."""
        return self.sharding == "ddp" and self.estimator == "exact"

    def check_world(self, processes: int) -> None:
        """Refuse a batch that processes and micro-batches cannot share evenly.

        Raises:
            UserError: see :func:`check_share`.
        """
        check_share(
            f"title_objective.batch_size is {self.batch_size}",
            self.batch_size,
            processes,
            "gradient_accumulation_steps",
            self.gradient_accumulation_steps,
        )
