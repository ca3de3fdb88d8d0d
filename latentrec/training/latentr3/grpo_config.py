"""Configuration of ``grpo``, LatentR³'s stage 2 on noised latents."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from latentrec.core import UserError
from latentrec.core.config import LARGEST, NonNegativeFloat, NonNegativeInt, OneOf, PositiveFloat, PositiveInt
from latentrec.data.time_range import check_time_range
from latentrec.training.common.early_stopping import LOSS, SELECTIONS, check_selection
from latentrec.training.common.world import check_share
from latentrec.training.latentr3.stage_2_config import Stage2Config

REWARDS = ("perplexity", "nll", "clipped_perplexity", "exact_match", "ndcg")
ADVANTAGES = ("batch", "group", "own")
ESTIMATORS = ("gaussian", "target_likelihood")
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "estimator": "target_likelihood",
        "reward": "perplexity",
        "advantage": "batch",
        "advantage_batch": "microbatch",
        "noise": "absolute",
        "noise_std": 1.5,
        "learning_rates": (1e-5, 5e-5, 1e-4, 5e-4),
        "warmup_steps": 200,
        "bf16": True,
        "load_best_model_at_end": False,
        "collapse_below": 0.0,
        "metric_for_best_model": "ndcg_at_10",
        "eval_steps": 100_000,
        "ranking_samples": 1000,
    },
    "default": {
        "estimator": "gaussian",
        "reward": "nll",
        "advantage": "own",
        "advantage_batch": "optimizer",
        "noise": "relative",
        "noise_std": 0.1,
        "learning_rates": (3e-4,),
        "warmup_steps": 5,
        "bf16": False,
        "load_best_model_at_end": True,
        "collapse_below": 0.5,
        "metric_for_best_model": LOSS,
        "eval_steps": 20,
        "ranking_samples": 200,
    },
}
"""What unset options become. ``paper`` is the publication and its code: perplexity reward over the mean of
two prompts' clean copies, σ = 1.5, one pass in bf16, the last weights of the best of four learning rates.
The one deviation: that choice is made on validation, where the authors' scripts make it on test."""


class LatentGRPOConfig(Stage2Config):
    """Stage 2 as reinforcement learning on noised latents (arXiv 2505.19092, §3.4)."""

    step_name: ClassVar[str] = "grpo"

    profile: Literal["default", "paper"] = Field("default", description="what unset options become")
    estimator: Annotated[str, OneOf(*ESTIMATORS)] | None = Field(
        None,
        description="gaussian: score function of the latent's density; target_likelihood: gradient of the "
        "answer's likelihood under the noised latent, as published (default gaussian)",
    )
    reward: Annotated[str, OneOf(*REWARDS)] | None = Field(
        None, description="the reward of a copy (default nll, paper perplexity)"
    )
    advantage: Annotated[str, OneOf(*ADVANTAGES)] | None = Field(
        None,
        description="baseline: batch as published, group as in GRPO, own clean copy (default own, paper "
        "batch)",
    )
    advantage_batch: Literal["optimizer", "microbatch"] | None = Field(
        None,
        description="prompts that share one advantage: the optimizer batch, or a microbatch of two, as the "
        "authors' two processes gather them (default optimizer, paper microbatch)",
    )
    likelihood: Literal["vocabulary", "catalogue"] | None = Field(
        None,
        description="among what a token's probability is taken, in rewards and in the target's likelihood "
        "(default: as the model's stage 1)",
    )
    noise: Literal["absolute", "relative"] | None = Field(
        None,
        description="noise_std counts absolutely, or relative to the latent's root mean square (default "
        "relative)",
    )
    noise_std: PositiveFloat | None = Field(
        None, description="sigma (default 0.1 relative, paper 1.5 absolute)"
    )
    num_generations: Annotated[int, Field(ge=2, le=LARGEST)] = Field(
        8, description="K, copies of a prompt; the first has no noise"
    )
    batch_size: Annotated[int, Field(ge=2, le=LARGEST)] = Field(
        256, description="copies of an optimizer step: prompts x num_generations"
    )
    num_iterations: PositiveInt = Field(
        1, description="optimizer steps on the same copies; above 1 the ratio is live"
    )
    epsilon: PositiveFloat = Field(0.2, description="ratio is clipped below 1 - epsilon")
    epsilon_high: PositiveFloat = Field(0.28, description="ratio is clipped above 1 + epsilon_high")
    beta: NonNegativeFloat = Field(
        0.0, description="weight of the KL to the stage-1 model (a frozen copy of what learns)"
    )
    train_backbone: bool = Field(False, description="train the backbone too, jointly with LatentRATT")
    learning_rate: PositiveFloat | None = Field(
        None, description="peak of the schedule; one instead of learning_rates"
    )
    learning_rates: tuple[PositiveFloat, ...] | None = Field(
        None,
        description="peaks that are tried one after another from the same stage 1; metric_for_best_model "
        "chooses (default 3e-4, paper 1e-5 5e-5 1e-4 5e-4)",
    )
    warmup_steps: NonNegativeInt | None = Field(
        None, description="steps of linear warm-up (default 5, paper 200)"
    )
    bf16: bool | None = Field(
        None,
        description="autocast to bf16, weights stay fp32; a CPU without bf16 computes in fp32 and says so "
        "(default off, paper on)",
    )
    eval_steps: PositiveInt | None = Field(
        None,
        description="steps between evaluations, besides first and last (default 20, paper: none)",
    )
    metric_for_best_model: Annotated[str, OneOf(*SELECTIONS)] | None = Field(
        None,
        description="validation figure that decides which weights and which learning rate are kept "
        "(default loss, paper ndcg_at_10)",
    )
    load_best_model_at_end: bool | None = Field(
        None,
        description="end with the weights that were best on validation, else with the last (paper: last)",
    )
    collapse_below: NonNegativeFloat | None = Field(
        None,
        description="stop when validation HR@10 falls below this share of stage 1's; 0: no guard (default "
        "0.5, paper 0)",
    )
    ranking_samples: NonNegativeInt | None = Field(
        None,
        description="validation samples ranked by the real decoder; 0: none (default 200, paper 1000)",
    )
    diagnostics_every: NonNegativeInt = Field(
        10, description="steps between gradient cosines and other diagnostics; 0: never (they cost a pass)"
    )

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        """Fill what the profile decides, and refuse what cannot be meant."""
        if self.learning_rate is not None:
            if self.learning_rates not in (None, (self.learning_rate,)):
                raise UserError(
                    f"grpo.learning_rate is {self.learning_rate:g} and learning_rates are "
                    f"{' '.join(f'{rate:g}' for rate in self.learning_rates or ())}; give one of them",
                    code="config.conflict",
                )
            self.fill({"learning_rates": (self.learning_rate,)})
        self.fill(PROFILES[self.profile])
        rates = self.learning_rates or ()
        if not rates or len(set(rates)) < len(rates):
            raise UserError(
                f"grpo.learning_rates are {list(rates)}; give one or more different ones",
                code="config.bad_value",
            )
        if len(rates) == 1:
            self.fill({"learning_rate": rates[0]})
        check_time_range("grpo", self.train_from, self.train_to)
        if self.batch_size % self.num_generations:
            raise UserError(
                f"grpo.batch_size is {self.batch_size}, which is no multiple of num_generations "
                f"{self.num_generations}; it counts copies, not prompts",
                code="config.conflict",
            )
        check_selection("grpo", str(self.metric_for_best_model), self.ranking_samples or 0)
        return self

    @property
    def prompts_per_step(self) -> int:
        """Prompts of an optimizer batch."""
        return self.batch_size // self.num_generations

    def at_each_rate(self) -> list[LatentGRPOConfig]:
        """This configuration at each of its learning rates."""
        rates = self.learning_rates or ()
        return [self.replace(learning_rate=rate, learning_rates=(rate,)) for rate in rates]

    def check_world(self, processes: int) -> None:
        """Refuse a batch that processes and micro-batches cannot share evenly.

        Raises:
            UserError: see :func:`check_share`.
        """
        check_share(
            f"grpo.batch_size is {self.batch_size} copies of {self.prompts_per_step} prompts",
            self.prompts_per_step,
            processes,
            "gradient_accumulation_steps",
            self.gradient_accumulation_steps,
            unit=self.num_generations,
        )
