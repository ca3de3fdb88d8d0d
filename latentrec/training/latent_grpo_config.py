"""Configuration of LatentR³'s stage 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentrec.core import UserError, option
from latentrec.training.grpo_objective import ADVANTAGES, ESTIMATORS, REWARDS, TITLE_POLICY
from latentrec.training.judge import LOSS, OBJECTIVE, SELECTIONS, check_selection
from latentrec.training.parts import check_part

PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "estimator": "target_likelihood",
        "reward": "perplexity",
        "advantage": "batch",
        "advantage_prompts": 2,
        "noise": "absolute",
        "noise_std": 1.5,
        "learning_rate": 1e-4,
        "warmup_steps": 200,
    },
    "default": {"estimator": TITLE_POLICY, "warmup_steps": 5},
}
"""What unset options become. ``paper`` is the publication and its code to the letter."""

_ON_THE_LATENT: dict[str, Any] = {
    "reward": "nll",
    "advantage": "own",
    "advantage_prompts": 0,
    "noise": "relative",
    "noise_std": 0.1,
    "learning_rate": 3e-4,
    "clip_low": 0.2,
    "clip_high": 0.28,
    "train_backbone": False,
    "select_on": LOSS,
    "judge_every": 20,
}
ESTIMATOR_DECIDES: dict[str, dict[str, Any]] = {
    "gaussian": _ON_THE_LATENT,
    "target_likelihood": _ON_THE_LATENT,
    TITLE_POLICY: {
        "reward": "exact_match",
        "advantage": "group",
        "likelihood": "catalogue",
        "learning_rate": 3e-4,
        "train_backbone": True,
        "select_on": OBJECTIVE,
        "judge_every": 100,
    },
}
"""What options become that the profile leaves unset; docs/estimator.md has the evidence."""
_OF_NOISED_LATENTS = ("noise", "noise_std", "advantage_prompts", "clip_low", "clip_high")


@dataclass(frozen=True, kw_only=True)
class GRPOConfig:
    """Stage 2: reinforcement learning on titles, or on noised latents (arXiv 2505.19092, §3.4)."""

    profile: str = option("default", help="what unset options become", choices=("default", "paper"))
    estimator: str | None = option(
        None,
        help="title_policy: the title is the action, and GRPO's gradient is taken in expectation over all "
        "titles; gaussian: the latent is the action, score function of its density; target_likelihood: the "
        "latent too, by the answer's likelihood, as published (default profile title_policy)",
        choices=ESTIMATORS,
    )
    reward: str | None = option(
        None,
        help="what an action is judged by (default: latents nll, titles exact_match; paper perplexity)",
        choices=REWARDS,
    )
    perplexity_limit: float = option(100.0, help="largest perplexity under reward clipped_perplexity")
    advantage: str | None = option(
        None,
        help="baseline: batch as published, group as in GRPO, own clean copy; titles know group, and none "
        "for a reward that no standard deviation divides (default: own for latents, group for titles)",
        choices=ADVANTAGES,
    )
    advantage_prompts: int | None = option(
        None,
        help="prompts that share one advantage; 0: the optimiser batch (default profile 0, paper 2 as coded)",
    )
    likelihood: str | None = option(
        None,
        help="among what a token's probability is taken, in rewards and in the target's likelihood "
        "(default: the catalogue for titles, else as the model's stage 1)",
        choices=("vocabulary", "catalogue"),
    )
    noise: str | None = option(
        None,
        help="noise_std counts absolutely, or relative to the latent's root mean square (default relative)",
        choices=("absolute", "relative"),
    )
    noise_std: float | None = option(None, help="sigma (default 0.1 relative, paper 1.5 absolute)")
    group_size: int = option(
        8, help="K, copies of a prompt; the first has no noise (titles: none are drawn, all are counted)"
    )
    batch_size: int = option(256, help="copies of an optimiser step: prompts x group_size")
    accumulation: int = option(1, help="micro-batches that each process takes for one optimiser step")
    iterations: int = option(1, help="optimiser steps on the same copies; above 1 the ratio is live")
    clip_low: float | None = option(None, help="ratio is clipped below 1 - clip_low (0.2)")
    clip_high: float | None = option(None, help="ratio is clipped above 1 + clip_high (0.28)")
    beta: float = option(0.0, help="weight of the KL to the stage-1 model (a frozen copy of what learns)")
    train_backbone: bool | None = option(
        None, help="train the backbone too, jointly with LatentRATT (default: for titles)"
    )
    gradient_checkpointing: bool = option(False, help="recompute activations to save memory")
    epochs: float = option(1.0, help="passes over the training split")
    train_from: float = option(
        0.0,
        help="where the training samples used begin, as a share of them by time; a share held out of one "
        "stage may serve the other",
    )
    train_to: float = option(1.0, help="where the training samples used end, as a share of them by time")
    max_steps: int = option(0, help="stop after so many optimiser steps; 0: epochs decide")
    learning_rate: float | None = option(None, help="peak of the schedule (default 3e-4, paper 1e-4)")
    warmup_steps: int | None = option(None, help="steps of linear warm-up (default 5, paper 200)")
    schedule: str = option(
        "cosine", help="what follows the warm-up", choices=("cosine", "linear", "constant_with_warmup")
    )
    weight_decay: float = option(0.0, help="AdamW's decay")
    max_grad_norm: float = option(1.0, help="gradients are clipped to this norm; 0: not")
    precision: str = option("fp32", help="bf16: autocast; weights stay fp32", choices=("fp32", "bf16"))
    judge_every: int | None = option(
        None, help="steps between looks at validation (default 20 for latents, 100 for titles)"
    )
    patience: int = option(0, help="looks without a better figure before training stops; 0: never")
    select_on: str | None = option(
        None,
        help="validation figure that decides which weights are kept; objective: what the title policy "
        "maximises (default: objective for titles, else loss)",
        choices=(*SELECTIONS, OBJECTIVE),
    )
    keep: str = option(
        "best", help="weights that the model ends with: best on validation, or last", choices=("best", "last")
    )
    collapse_below: float = option(
        0.5, help="stop when validation HR@10 falls below this share of stage 1's; 0: no guard"
    )
    validation_samples: int = option(1000, help="validation samples of a look, a seeded draw; 0: all")
    ranking_samples: int = option(200, help="of these, how many are ranked by the real decoder; 0: none")
    diagnostics_every: int = option(
        10, help="steps between gradient cosines and other diagnostics; 0: never (they cost a pass)"
    )
    save_every: int = option(100, help="steps between checkpoints, besides one at each look")
    log_every: int = option(5, help="steps between figures")
    seed: int = option(42, help="of order, draws and noise")

    def __post_init__(self) -> None:
        """Fill what the profile decides, and refuse what cannot be meant."""
        profile = PROFILES[self.profile]
        if (self.estimator or profile["estimator"]) == TITLE_POLICY:
            self._check_title_policy()
            profile = {"estimator": TITLE_POLICY, "warmup_steps": profile["warmup_steps"]}
        self._fill(profile)
        self._fill(ESTIMATOR_DECIDES[str(self.estimator)])
        if self.advantage == "none" and self.estimator != TITLE_POLICY:
            raise UserError("GRPOConfig.advantage is 'none', which is of estimator title_policy")
        at_least = {
            "group_size": 2,
            "batch_size": 2,
            "accumulation": 1,
            "iterations": 1,
            "advantage_prompts": 0,
            "beta": 0,
            "max_steps": 0,
            "warmup_steps": 0,
            "weight_decay": 0,
            "max_grad_norm": 0,
            "judge_every": 1,
            "patience": 0,
            "collapse_below": 0,
            "validation_samples": 0,
            "ranking_samples": 0,
            "diagnostics_every": 0,
            "save_every": 1,
            "log_every": 1,
        }
        for name, least in at_least.items():
            if (value := getattr(self, name)) is not None and value < least:
                why = " (the first copy is the clean one)" if name == "group_size" else ""
                raise UserError(
                    f"GRPOConfig.{name} is {getattr(self, name)}; it must be at least {least}{why}"
                )
        check_part("GRPOConfig", self.train_from, self.train_to)
        for name in ("noise_std", "learning_rate", "epochs", "clip_low", "clip_high", "perplexity_limit"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"GRPOConfig.{name} is {value}; it must be greater than 0")
        if self.batch_size % self.group_size:
            raise UserError(
                f"GRPOConfig.batch_size is {self.batch_size}, which is no multiple of group_size "
                f"{self.group_size}; it counts copies, not prompts"
            )
        if self.select_on == OBJECTIVE and self.estimator != TITLE_POLICY:
            raise UserError("GRPOConfig.select_on is 'objective', which is of estimator title_policy")
        check_selection("GRPOConfig", str(self.select_on), self.ranking_samples)

    def _fill(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def _check_title_policy(self) -> None:
        """Refuse what means nothing where the action is a title: it would be dropped without a word."""
        for name in _OF_NOISED_LATENTS:
            if (value := getattr(self, name)) is not None:
                raise UserError(
                    f"GRPOConfig.{name} is {value}, but estimator title_policy noises no latent; leave it "
                    "unset, or choose estimator gaussian or target_likelihood"
                )
        if self.reward not in (None, "exact_match"):
            raise UserError(f"GRPOConfig.reward is '{self.reward}'; estimator title_policy knows exact_match")
        if self.advantage not in (None, "group", "none"):
            raise UserError(
                f"GRPOConfig.advantage is '{self.advantage}'; estimator title_policy knows group and none"
            )
        for name, neutral in (("beta", 0), ("iterations", 1)):
            if getattr(self, name) != neutral:
                raise UserError(
                    f"GRPOConfig.{name} is {getattr(self, name)}; estimator title_policy counts all titles "
                    f"anew at each step, so {name} stays {neutral}"
                )

    @property
    def prompts_per_step(self) -> int:
        """Prompts of an optimiser batch."""
        return self.batch_size // self.group_size

    def check_world(self, processes: int) -> None:
        """Refuse a batch that cannot be dealt out evenly.

        Raises:
            UserError: the prompts of a batch are not divisible by processes × accumulation.
        """
        parts = processes * self.accumulation
        if self.prompts_per_step % parts:
            raise UserError(
                f"GRPOConfig.batch_size is {self.batch_size} copies of {self.prompts_per_step} prompts, "
                f"which {processes} processes x accumulation {self.accumulation} cannot share evenly; "
                f"use a multiple of {parts * self.group_size}"
            )
