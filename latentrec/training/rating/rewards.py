"""The rule-based reward of RecZero, as functions that any trl GRPO run can use.

``R = R_format + R_answer`` (arXiv 2510.23077, §3.3): ``R_format`` is +0.5 for a valid answer and −0.5
otherwise; ``R_answer = 1 − |y − ŷ| / max_error`` counts only where the format is valid. The two parts are
separate reward functions, so that trl logs each on its own::

    GRPOTrainer(..., reward_funcs=[format_reward, answer_reward], train_dataset=<columns prompt, rating>)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentrec.core import UserError
from latentrec.prompts.rating_format import RatingAnswer, RatingScale, parse_answer

RewardFunction = Callable[..., list[float]]


@dataclass(frozen=True)
class RatingReward:
    """The reward's constants.

    Attributes:
        valid: format reward of a valid answer.
        invalid: format reward of anything else.
        max_error: error at which the answer reward is 0; 4 on a scale of 1 to 5 (the paper). A copy of the
            authors' code has 2, where the answer reward of a far miss is negative.
        scale: ratings that may be given.
    """

    valid: float = 0.5
    invalid: float = -0.5
    max_error: float = 4.0
    scale: RatingScale = field(default_factory=RatingScale)

    def __post_init__(self) -> None:
        """Refuse constants under which a broken answer would earn more than a right one."""
        if not (math.isfinite(self.max_error) and self.max_error > 0):
            raise UserError(
                f"max_error is {self.max_error}; it must be a number above 0", code="config.bad_value"
            )
        if not self.valid > self.invalid:
            raise UserError(
                f"a valid format earns {self.valid}, a broken one {self.invalid}; it must be higher",
                code="config.conflict",
            )

    @property
    def maximum(self) -> float:
        """What a valid answer with the true rating earns."""
        return self.valid + 1.0

    def format(self, text: str) -> float:
        """Format part of one completion."""
        return self.valid if isinstance(parse_answer(text, self.scale), RatingAnswer) else self.invalid

    def answer(self, text: str, truth: float) -> float:
        """Answer part of one completion; 0 where the format is not valid."""
        parsed = parse_answer(text, self.scale)
        if not isinstance(parsed, RatingAnswer):
            return 0.0
        return 1.0 - abs(truth - parsed.rating) / self.max_error

    def total(self, text: str, truth: float) -> float:
        """Format part plus answer part."""
        return self.format(text) + self.answer(text, truth)


def reward_functions(reward: RatingReward) -> list[RewardFunction]:
    """The two parts as trl reward functions, named ``format_reward`` and ``answer_reward`` in its logs.

    The dataset must have the true rating as column ``rating``. ``answer_reward`` also logs ``format_valid``
    (share of valid answers) and ``abs_error`` (mean error of the valid ones) through trl's ``log_metric``.
    """

    def format_reward(*, completions: Sequence[Any], **_: Any) -> list[float]:
        return [reward.format(completion_text(completion)) for completion in completions]

    def answer_reward(*, completions: Sequence[Any], rating: Sequence[float], **context: Any) -> list[float]:
        texts = [completion_text(completion) for completion in completions]
        log_metric = context.get("log_metric")
        if log_metric is not None and texts:
            parsed = [parse_answer(text, reward.scale) for text in texts]
            errors = [
                abs(truth - answer.rating)
                for truth, answer in zip(rating, parsed, strict=True)
                if isinstance(answer, RatingAnswer)
            ]
            log_metric("format_valid", len(errors) / len(texts))
            if errors:
                log_metric("abs_error", sum(errors) / len(errors))
        return [reward.answer(text, truth) for text, truth in zip(texts, rating, strict=True)]

    return [format_reward, answer_reward]


def completion_text(completion: Any) -> str:
    """The text of a completion as trl passes it: plain, or the messages of a conversation."""
    if isinstance(completion, str):
        return completion
    return "".join(message.get("content") or "" for message in completion)


format_reward, answer_reward = reward_functions(RatingReward())
